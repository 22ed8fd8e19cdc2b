#include "batch_sides.h"

#include <algorithm>

#include "operator.h"

namespace ms_kfac {
namespace {

// A block sums up at least as many numbers as it has warps, and there are no more blocks than a GPU runs at a time.
int64_t vector_blocks(const LayerSide& inputs, const LayerSide& gradients, int multiprocessors) {
  const int64_t numbers = std::max(inputs.summed.count(), gradients.summed.count());
  const int64_t warps = kThreads / 32;
  return std::min<int64_t>((numbers + warps - 1) / warps, 4 * multiprocessors);
}

}  // namespace

BatchPlan::BatchPlan(const LayerBatch& batch, AotExtra& extra) : multiprocessors_(ms_kfac::multiprocessors()) {
  LayerSide inputs = batch.inputs(), gradients = batch.gradients();
  plan_ = plan_sides(inputs, gradients, multiprocessors_);
  add_workspace(extra, plan_.numbers * sizeof(float));
}

BatchSides BatchPlan::sides(const LayerBatch& batch, float* workspace, unsigned* counters) const {
  BatchSides sides{batch.inputs(), batch.gradients(), 0};
  const SidePlan plan = plan_sides(sides.inputs, sides.gradients, multiprocessors_);
  if (plan.numbers != plan_.numbers || plan.counters != plan_.counters)
    throw std::invalid_argument("other shapes than those that the kernel was created for");
  sides.vector_blocks = vector_blocks(sides.inputs, sides.gradients, multiprocessors_);
  place_sides(sides.inputs, sides.gradients, plan, workspace, counters);
  return sides;
}

Precision precision_of(AotExtra& extra) {
  const std::string name = extra.GetAttrStr("precision");
  if (name == "float32") return Precision::kFloat32;
  if (name == "tf32") return Precision::kTf32;
  if (name == "bfloat16") return Precision::kBfloat16;
  throw std::invalid_argument("precision must be float32, tf32 or bfloat16, got " + name);
}

}  // namespace ms_kfac
