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
  Patches& patches = norms.patches;
  patches = side.patches;
  const int64_t samples = side.sum.depth / (patches.locations[0] * patches.locations[1]);
  const int64_t pixels = static_cast<int64_t>(patches.height) * patches.width;
  norms.squares = {patches.numbers, samples * side.sum.groups, patches.channels, pixels, 1, 1, 0, nullptr};
  norms.squares.share_out(multiprocessors, false);
  patches.channels = 1;
  patches.group_stride = pixels;
  patches.sample_stride = side.sum.groups * pixels;
  return norms;
}

}  // namespace

BatchTrace::BatchTrace(const LayerSide& of_inputs, const LayerSide& of_gradients, const TraceRule& rule,
                       int64_t samples, int multiprocessors)
    : inputs(norms_of(of_inputs, multiprocessors)),
      gradients(norms_of(of_gradients, multiprocessors)),
      rule(rule),
      groups(of_inputs.sum.groups),
      samples(static_cast<float>(samples)),
      depth(of_inputs.sum.depth) {
  // A thread makes the norm of a patch, a warp that of a row.
  const int64_t at_once = inputs.of_patches ? kThreads : kThreads / 32;
  parts = static_cast<int>(
      std::max<int64_t>(std::min<int64_t>(4 * multiprocessors / groups, (depth + at_once - 1) / at_once), 1));
}

int64_t BatchTrace::numbers() const {
  return inputs.squares.numbers_of_sums() + gradients.squares.numbers_of_sums() + 2 * groups * depth + blocks() +
         groups;
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
  factors = take(groups);
  arrivals = counters;
}

void BatchTrace::weigh(BatchSides& sides) const {
  sides.inputs.vector_factors = gradients.roots;
  sides.gradients.vector_factors = inputs.roots;
  sides.inputs.sum_factors = sides.gradients.sum_factors = rule.roots ? factors : nullptr;
}

}  // namespace ms_kfac
