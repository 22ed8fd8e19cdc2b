// What operators have to say: errors and warnings, kept for Python.
#pragma once

#include <exception>
#include <string>

namespace ms_kfac {

// Keeps the message of an operator's exception for Python and returns the code that MindSpore raises with.
int report_error(const char* name, const std::exception& error) noexcept;

// Says something once on stderr: a second call with the same text is silent. Also kept for kernels.status().
void warn_once(const std::string& text);

}  // namespace ms_kfac
