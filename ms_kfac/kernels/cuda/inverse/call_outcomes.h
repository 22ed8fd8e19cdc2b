// The outcomes of a kernel's calls: words on the device for the launches of one call, and failures for the host.
#pragma once

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "../scheduling/counter_memory.h"
#include "inverse_failures.h"
#include "inverse_status.h"

namespace ms_kfac {

// Counts the calls of all kernels. The words then need no reset, even when another kernel takes them over.
inline std::atomic<unsigned> calls{0};

namespace {

class CallOutcomes {
 public:
  // One name per factor.
  explicit CallOutcomes(std::vector<std::string> names)
      : count_(static_cast<int>(names.size())), failures_(std::move(names)), words_(count_ + 1) {}

  Outcomes next_call() { return {{words_.device(), count_, ++calls}, words_.device(), failures_.device()}; }
  // The word of a factor.
  unsigned* word(int index) const { return words_.device() + index; }
  InverseFailures& failures() { return failures_; }

 private:
  int count_;
  InverseFailures failures_;
  CounterRange words_;
};

}  // namespace
}  // namespace ms_kfac
