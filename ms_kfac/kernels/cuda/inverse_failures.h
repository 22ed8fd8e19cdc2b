// What became of the inverses of earlier calls, as the host gets to know it: in mapped memory that the device writes.
#pragma once

#include <string>
#include <vector>

#include "mapped_memory.h"
#include "outcomes.h"

namespace ms_kfac {

class InverseFailures {
 public:
  explicit InverseFailures(std::vector<std::string> names);

  // Where the device writes an Outcome a factor, if it is not fine.
  int* device() const { return outcomes_.device(); }

  // Takes what has been written: a factor that was not positive definite gets ten times its damping and a warning, any
  // other failure is thrown as std::runtime_error that names the first factor with the first cause.
  void take();

  // What a factor's damping is multiplied by.
  float growth(int index) const { return growth_[index]; }

 private:
  void grow(size_t index);

  std::vector<std::string> names_;
  std::vector<float> growth_;
  MappedArray<int> outcomes_;
};

}  // namespace ms_kfac
