// One backward pass's contribution to a layer's staged batch.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>

#include "../../interface/pass_kernels.h"
#include "../../interface/staged_batch.h"
#include "../operator.h"
#include "../statistics/capture_check.h"
#include "../threads/threads.h"

namespace ms_kfac {

// Several calls of a layer in one pass may run at the same time: their kernels take turns. Layers share the mutexes.
inline std::mutex& turn_of(const float* record) {
  static std::array<std::mutex, 64> turns;
  return turns[reinterpret_cast<std::uintptr_t>(record) / 64 % turns.size()];
}

// A pass of a layer with `weights` weights. `kernel` identifies the kernel that stages it. Call take() for all arrays
// before record(): take() needs the record of the passes before this one.
template <int weights>
class StagedPass {
 public:
  StagedPass(const Array& record, const void* kernel) : record_(record.floats()), turn_(turn_of(record_)) {
    if (record.size() != kStagedWeights + weights)
      throw std::invalid_argument("the record has " + std::to_string(record.size()) + " numbers, expected " +
                                  std::to_string(kStagedWeights + weights));
    // The first pass of a batch. What was noted before belongs to skipped passes, or to an array that was freed.
    if (!(record_[kPasses] > 0.0f)) PassKernels::take(record_);
    PassKernels::note(record_, kernel);
  }

  // Whether the array of a weight already holds a part of the same batch.
  bool joins(int weight) const { return joins_array(record_, weight); }

  // Prepares the array of a weight for adding this pass. Clears the array unless the pass joins it.
  float* take(int weight, float* values, int64_t size) const {
    if (joins(weight)) return values;
    constexpr int64_t kChunk = 1 << 18;
    parallel_for((size + kChunk - 1) / kChunk, [&](int64_t chunk) {
      std::fill_n(values + chunk * kChunk, std::min(kChunk, size - chunk * kChunk), 0.0f);
    });
    return values;
  }

  // A weight of the staged batch if this pass adds to it; 0 if this pass replaces it.
  float staged(int weight) const { return joins_batch(record_) ? record_[kStagedWeights + weight] : 0.0f; }

  // Sets this pass's contribution to a weight.
  void weigh(int weight, float amount) { taken_[weight] = amount; }

  void record(const CaptureCheck& check) { record_pass(record_, taken_.data(), weights, check.product, check.scale); }

 private:
  float* record_;
  std::lock_guard<std::mutex> turn_;
  std::array<float, weights> taken_{};
};

}  // namespace ms_kfac
