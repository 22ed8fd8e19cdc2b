// Errors and warnings of operators, stored for Python.
#pragma once

#include <exception>
#include <string>

namespace ms_kfac {

// Stores an exception's message for Python. Returns the error code that makes MindSpore raise.
int report_error(const char* name, const std::exception& error) noexcept;

// Prints a warning on stderr, once per text, and stores it for kernels.status().
void warn_once(const std::string& text);

}  // namespace ms_kfac
