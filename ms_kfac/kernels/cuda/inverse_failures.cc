#include "inverse_failures.h"

#include <sstream>
#include <stdexcept>
#include <utility>

#include "../interface/messages.h"
#include "launch.h"

namespace ms_kfac {

InverseFailures::InverseFailures(std::vector<std::string> names)
    : names_(std::move(names)), growth_(names_.size(), 1.0f), outcomes_(nullptr), device_(nullptr) {
  if (names_.empty()) return;
  check(cudaHostAlloc(&outcomes_, names_.size() * sizeof(int), cudaHostAllocMapped | cudaHostAllocPortable),
        "allocating mapped memory");
  for (size_t i = 0; i < names_.size(); ++i) outcomes_[i] = kFine;
  const cudaError_t error = cudaHostGetDevicePointer(&device_, outcomes_, 0);
  if (error != cudaSuccess) {
    cudaFreeHost(outcomes_);
    check(error, "looking for mapped memory");
  }
}

// At the end of a process CUDA may be gone, which is no error here.
InverseFailures::~InverseFailures() {
  if (outcomes_ != nullptr) cudaFreeHost(outcomes_);
}

void InverseFailures::take() {
  std::string refused;
  for (size_t i = 0; i < names_.size(); ++i) {
    const int outcome = *static_cast<volatile int*>(outcomes_ + i);
    if (outcome == kFine) continue;
    outcomes_[i] = kFine;
    const std::string& name = names_[i];
    if (outcome == kIndefinite) {
      growth_[i] *= 10.0f;
      std::ostringstream text;
      text << name << " is not positive definite with its damping: its inverse stays as it was, and its damping is "
           << growth_[i] << " times as large from the next refresh on";
      warn_once(text.str());
      continue;
    }
    if (outcome == kHopeless) growth_[i] = 1.0f;
    if (!refused.empty()) continue;
    refused = outcome == kNotFinite          ? name + " holds NaN or infinity"
              : outcome == kDampingNotFinite ? name + " has a scale or a damping of NaN or infinity"
                                             : name + " is not positive definite with damping beyond its trace";
  }
  if (!refused.empty()) throw std::runtime_error(refused + ", at an earlier refresh");
}

}  // namespace ms_kfac
