#include "batch_sides.h"

#include <algorithm>

#include "../operator.h"

namespace ms_kfac {

int64_t vector_blocks(const LayerSide& inputs, const LayerSide& gradients, int multiprocessors) {
  const int64_t numbers = std::max(inputs.summed.count(), gradients.summed.count());
  const int64_t warps = kThreads / 32;
  return std::min<int64_t>((numbers + warps - 1) / warps, 4 * multiprocessors);
}

BatchPlan::BatchPlan(const LayerBatch& batch, AotExtra& extra, PatchForm form)
    : multiprocessors_(ms_kfac::multiprocessors()) {
  LayerSide inputs = batch.inputs(), gradients = batch.gradients();
  lags_ = plan_lags(inputs, form);
  depth_ = inputs.sum.depth;
  image_[0] = inputs.patches.height;
  image_[1] = inputs.patches.width;
  plan_ = plan_sides(inputs, gradients, lags_, multiprocessors_);
  add_workspace(extra, plan_.numbers * sizeof(float));
}

BatchSides BatchPlan::sides(const LayerBatch& batch, float* workspace, unsigned* counters) const {
  BatchSides sides{batch.inputs(), batch.gradients(), 0, lags_};
  const SidePlan plan = plan_sides(sides.inputs, sides.gradients, sides.lags, multiprocessors_);
  if (plan.numbers != plan_.numbers || plan.counters != plan_.counters || sides.inputs.sum.depth != depth_ ||
      sides.inputs.patches.height != image_[0] || sides.inputs.patches.width != image_[1])
    throw std::invalid_argument("shapes must be those that the kernel was created with");
  sides.vector_blocks = vector_blocks(sides.inputs, sides.gradients, multiprocessors_);
  place_sides(sides.inputs, sides.gradients, sides.lags, plan, workspace, counters);
  return sides;
}

PatchForm patch_form_of(AotExtra& extra) {
  if (!extra.HasAttr("patches")) return PatchForm::kCheaper;
  const std::string name = extra.GetAttrStr("patches");
  if (name == "unfolded") return PatchForm::kUnfolded;
  if (name == "lags") return PatchForm::kLags;
  throw std::invalid_argument("patches must be unfolded or lags, got " + name);
}

}  // namespace ms_kfac
