// What one backward pass does to a layer's staged batch.
#pragma once

#include <algorithm>
#include <array>

#include "../../interface/staged_batch.h"
#include "../capture_check.h"
#include "../operator.h"
#include "../threads.h"

namespace ms_kfac {

// Of a layer with `weights` weights. Arrays are taken while the record is still that of the passes before.
template <int weights>
class StagedPass {
 public:
  explicit StagedPass(const Array& record) : record_(record.floats()) {
    if (record.size() != kStagedWeights + weights)
      throw std::invalid_argument("the record has " + std::to_string(record.size()) + " numbers, expected " +
                                  std::to_string(kStagedWeights + weights));
  }

  // The array of a weight, ready for this pass to add to: cleared, unless what it holds belongs to the same batch.
  float* take(int weight, float* values, int64_t size) const {
    if (joins_array(record_, weight)) return values;
    constexpr int64_t kChunk = 1 << 18;
    parallel_for((size + kChunk - 1) / kChunk, [&](int64_t chunk) {
      std::fill_n(values + chunk * kChunk, std::min(kChunk, size - chunk * kChunk), 0.0f);
    });
    return values;
  }

  // What this pass adds to a weight.
  void weigh(int weight, float amount) { taken_[weight] = amount; }

  void record(const CaptureCheck& check) { record_pass(record_, taken_.data(), weights, check.product, check.scale); }

 private:
  float* record_;
  std::array<float, weights> taken_{};
};

}  // namespace ms_kfac
