// When kernels touch the device, and what is left of errors that they ignore or report.

#include <cstdio>
#include <stdexcept>
#include <string>

#include "../../../ms_kfac/kernels/cuda/scheduling/mapped_memory.h"

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("%s\n", what);
  ++failures;
}

void nothing() {}

// Empty if the launch succeeds.
std::string launched() {
  try {
    ms_kfac::launch(nothing, 1, 1, nullptr);
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

void allocates_on_first_use() {
  using recording::allocations;
  allocations = recording::frees = 0;
  {
    ms_kfac::MappedArray<int> array(3), empty(0);
    expect(allocations == 0, "creating an array must not allocate");
    expect(array[2] == 0, "numbers must be zero at first");
    int* device = array.device();
    expect(allocations == 1, "one array must be allocated once");
    device[2] = 7;
    expect(array[2] == 7, "the host must see what the device writes");
    expect(empty.device() == nullptr && allocations == 1, "an empty array must not be allocated");
  }
  expect(recording::frees == 1, "each allocation must be freed");
}

void ignored_errors_are_cleared() {
  {
    ms_kfac::MappedArray<int> array(1);
    array.device();
    recording::next = cudaErrorCudartUnloading;
  }
  expect(launched().empty(), "a launch must not report an ignored error of another call");
}

void reported_errors_are_cleared() {
  ms_kfac::MappedArray<int> array(1);
  recording::next = cudaErrorInvalidValue;
  std::string message;
  try {
    array.device();
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  expect(message == "allocating mapped memory: the requested error", "a failed allocation must be reported");
  expect(launched().empty(), "a launch must not report an error that was reported before");
  expect(array.device() != nullptr, "a later call must allocate what an earlier one could not");
}

void errors_of_launches_are_reported() {
  recording::last = cudaErrorInvalidValue;
  expect(launched() == "launching a kernel: the requested error", "a failed launch must be reported");
}

}  // namespace

int main() {
  allocates_on_first_use();
  ignored_errors_are_cleared();
  reported_errors_are_cleared();
  errors_of_launches_are_reported();
  return failures != 0;
}
