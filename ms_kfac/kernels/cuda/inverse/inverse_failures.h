// Reports failed inverses of earlier calls to the host, in mapped memory that the device writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../scheduling/mapped_memory.h"
#include "inverse_status.h"

namespace ms_kfac {

class InverseFailures {
 public:
  explicit InverseFailures(std::vector<std::string> names);

  // Device pointer to one Outcome per factor. The device writes only failures.
  int* device() { return outcomes_.device(); }

  // Reads and clears the outcomes. If a factor was not positive definite, its damping grows tenfold, with a warning.
  // Any other failure is told to the reporter, or thrown as std::runtime_error if there is none. The text names the
  // most severe cause and the first factor with it.
  void take(int64_t reporter);

  // The multiple of the damping of a factor.
  float growth(int index) const { return growth_[index]; }

 private:
  void grow(size_t index);

  std::vector<std::string> names_;
  std::vector<float> growth_;
  MappedArray<int> outcomes_;
};

}  // namespace ms_kfac
