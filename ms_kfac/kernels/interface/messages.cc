// What each native library reports to Python: operator messages, array layouts, and the digest of its sources.

#include "messages.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>

#include "refresh_layouts.h"

namespace ms_kfac {
namespace {

std::mutex messages;
std::string last_error;
std::set<std::string> warnings;

int copy(const std::string& text, char* buffer, int size) {
  const int length = static_cast<int>(text.size());
  if (size > 0) {
    const int copied = std::min(length, size - 1);
    std::memcpy(buffer, text.data(), copied);
    buffer[copied] = '\0';
  }
  return length;
}

}  // namespace

int report_error(const char* name, const std::exception& error) noexcept {
  std::lock_guard<std::mutex> lock(messages);
  last_error = std::string(name) + ": " + error.what();
  std::fprintf(stderr, "ms_kfac: error in %s\n", last_error.c_str());
  return 1;
}

void warn_once(const std::string& text) {
  std::lock_guard<std::mutex> lock(messages);
  if (warnings.insert(text).second) std::fprintf(stderr, "ms_kfac: warning: %s\n", text.c_str());
}

}  // namespace ms_kfac

#ifndef MS_KFAC_SOURCES
#define MS_KFAC_SOURCES ""
#endif

extern "C" {

// A digest of the sources that this library was built from.
const char* ms_kfac_sources() { return MS_KFAC_SOURCES; }

// Copies the last error to the buffer, truncated if necessary. Returns its full length.
int ms_kfac_last_error(char* buffer, int size) {
  std::lock_guard<std::mutex> lock(ms_kfac::messages);
  return ms_kfac::copy(ms_kfac::last_error, buffer, size);
}

// The order of each refresh operator's arrays: one line per operator, "name: array, array, ...".
int ms_kfac_refresh_layouts(char* buffer, int size) {
#define MS_KFAC_LINE(name, ...) #name ": " #__VA_ARGS__ "\n"
  return ms_kfac::copy(MS_KFAC_REFRESH_LAYOUTS(MS_KFAC_LINE), buffer, size);
#undef MS_KFAC_LINE
}

// All warnings so far, one per line.
int ms_kfac_warnings(char* buffer, int size) {
  std::lock_guard<std::mutex> lock(ms_kfac::messages);
  std::string lines;
  for (const std::string& warning : ms_kfac::warnings) lines += warning + "\n";
  return ms_kfac::copy(lines, buffer, size);
}
}
