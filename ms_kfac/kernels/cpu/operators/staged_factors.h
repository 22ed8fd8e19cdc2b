// Stages a layer's factors. A has weight 0, G has weight 1.
#pragma once

#include "layer_arguments.h"
#include "staged_pass.h"

namespace ms_kfac {

enum Side { kInputSide, kGradientSide };

inline LayerSide side_of(const LayerBatch& batch, Side side, int64_t group) {
  return side == kInputSide ? batch.inputs(group) : batch.gradients(group);
}

// The weight of this batch's factor: the number of its outer products. For A it is the number of samples, because A
// sums over locations and does not average them.
inline float weight_of(const LayerBatch& batch, Side side) {
  const auto samples = static_cast<float>(batch.samples());
  return side == kInputSide ? samples : samples * static_cast<float>(batch.counted_locations());
}

template <int weights>
void stage_factor(const LayerBatch& batch, Side side, const Array& array, StagedPass<weights>& pass) {
  const int64_t groups = batch.groups(), features = side_of(batch, side, 0).features();
  float* sums = pass.take(side, matrices_of(array, groups, features), groups * features * features);
  batch.for_groups([&](int64_t group, int64_t workers) {
    add_side_moment(side_of(batch, side, group), sums + group * features * features, workers);
  });
  pass.weigh(side, weight_of(batch, side));
}

}  // namespace ms_kfac
