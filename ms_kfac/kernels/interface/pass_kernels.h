// Which kernels stage the passes of a layer: whether one backward pass calls the layer several times.
//
// A compiled step has one kernel per call of a layer, and runs all of them in each backward pass. So different kernels
// are calls in one pass, and a kernel that runs again belongs to a further pass (a micro-batch, or a loop in the
// graph).
#pragma once

#include <iterator>
#include <mutex>
#include <unordered_map>

namespace ms_kfac {

class PassKernels {
 public:
  // A kernel stages a pass in a layer's record.
  static void note(const float* record, const void* kernel) {
    const std::lock_guard<std::mutex> lock(mutex());
    Seen& seen = records()[record];
    ++seen.passes;
    if (seen.passes == 1) seen.first = kernel;
    if (seen.passes == 1 || (kernel != seen.first && seen.kernels == seen.passes - 1)) seen.kernels = seen.passes;
  }

  // The number of kernels that ran since the last call of take, until one ran again. 0 without a pass.
  static int take(const float* record) {
    const std::lock_guard<std::mutex> lock(mutex());
    const auto found = records().find(record);
    if (found == records().end()) return 0;
    const int kernels = found->second.kernels;
    records().erase(found);
    return kernels;
  }

  // A kernel is gone. Others may get its address, and its layer's record may become that of another layer.
  static void forget(const void* kernel) {
    const std::lock_guard<std::mutex> lock(mutex());
    for (auto seen = records().begin(); seen != records().end();)
      seen = seen->second.first == kernel ? records().erase(seen) : std::next(seen);
  }

 private:
  struct Seen {
    const void* first = nullptr;
    int passes = 0, kernels = 0;
  };

  static std::mutex& mutex() {
    static std::mutex of_all;
    return of_all;
  }
  static std::unordered_map<const float*, Seen>& records() {
    // Never destroyed: kernels may be gone only after this library's own objects.
    static auto* by_record = new std::unordered_map<const float*, Seen>;
    return *by_record;
  }
};

}  // namespace ms_kfac
