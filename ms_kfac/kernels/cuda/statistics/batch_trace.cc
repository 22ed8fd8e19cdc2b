#include "batch_trace.h"

#include <algorithm>

namespace ms_kfac {
namespace {

VectorNorms norms_of(const LayerSide& side, int multiprocessors) {
  VectorNorms norms{};
  norms.of_patches = side.of_patches;
  if (!side.of_patches) {
    norms.rows = side.rows;
    return norms;
  }
  const Patches& patches = side.patches;
  const int64_t samples = side.sum.depth / (patches.locations[0] * patches.locations[1]);
  norms.squares = AxisSums::over_channels(patches, samples * side.sum.groups, multiprocessors);
  norms.patches = without_channels(patches, side.sum.groups);
  return norms;
}

}  // namespace

BatchTrace::BatchTrace(const LayerSide& of_inputs, const LayerSide& of_gradients, int multiprocessors)
    : inputs(norms_of(of_inputs, multiprocessors)),
      gradients(norms_of(of_gradients, multiprocessors)),
      groups(of_inputs.sum.groups),
      depth(of_inputs.sum.depth) {
  // One thread computes the norm of a patch; one warp computes the norm of a row.
  const int64_t at_once = inputs.of_patches ? kThreads : kThreads / 32;
  parts = static_cast<int>(
      std::max<int64_t>(std::min<int64_t>(4 * multiprocessors / groups, (depth + at_once - 1) / at_once), 1));
}

int64_t BatchTrace::numbers() const {
  return inputs.squares.numbers_of_sums() + gradients.squares.numbers_of_sums() + 2 * groups * depth + blocks();
}

void BatchTrace::place(float* workspace, unsigned* counters) {
  const auto take = [&](int64_t count) {
    float* taken = workspace;
    workspace += count;
    return taken;
  };
  for (VectorNorms* norms : {&inputs, &gradients}) {
    norms->squares.sums = take(norms->squares.numbers_of_sums());
    norms->roots = take(groups * depth);
  }
  partials = take(blocks());
  arrivals = counters;
}

void BatchTrace::weigh(BatchSides& sides) const {
  sides.inputs.vector_factors = gradients.roots;
  sides.gradients.vector_factors = inputs.roots;
}

}  // namespace ms_kfac
