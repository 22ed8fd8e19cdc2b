// Updates all parameters in place with weight decay, momentum and learning rate.
//
// Attributes:
//   preconditioned, decayed: one flag per parameter;
//   rates, decays: the number of learning rates and of weight decays, either one for all parameters or one each;
//   updates: the number of updates;
//   sources: the index of each parameter's update;
//   nesterov, decoupled: flags.
// Inputs, float32: momentum, the scale of preconditioned updates, learning rates, weight decays; then the updates, the
// weights and the moments. Output: a float32 scalar that only orders later operators after this one.

#include "../operator.h"
#include "../scheduling/item_batch.h"
#include "../step/momentum_step.h"

namespace ms_kfac {
namespace {

__global__ void __launch_bounds__(kChunkThreads)
    momentum_step(const __grid_constant__ ItemBatch<MomentumArrays, MomentumRule> batch) {
  unsigned chunk;
  const MomentumArrays& arrays = batch.items[batch.find(chunk)];
  step_chunk(batch.common, arrays, chunk);
}

const float* scalar(const Array& array) {
  if (array.size() != 1) throw std::invalid_argument("expected a scalar");
  return array.floats();
}

class MomentumStepKernel {
 public:
  MomentumStepKernel(AotExtra& extra, const Arguments&)
      : preconditioned_(extra.GetAttrIntVec("preconditioned")),
        decayed_(extra.GetAttrIntVec("decayed")),
        sources_(extra.GetAttrIntVec("sources")),
        rates_(static_cast<int>(extra.GetAttrInt("rates"))),
        decays_(static_cast<int>(extra.GetAttrInt("decays"))),
        updates_(static_cast<int>(extra.GetAttrInt("updates"))),
        nesterov_(extra.GetAttrBool("nesterov")),
        decoupled_(extra.GetAttrBool("decoupled")) {}

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const int count = static_cast<int>(preconditioned_.size());
    const int rates = 2, decays = rates + rates_, updates = decays + decays_;
    const int weights = updates + updates_, moments = weights + count;
    if (arguments.count() != moments + count + 1)
      throw std::invalid_argument("the number of inputs does not match the attributes");
    const MomentumRule rule{scalar(arguments[0]), scalar(arguments[1]), nesterov_, decoupled_};
    std::vector<MomentumArrays> arrays;
    for (int index = 0; index < count; ++index) {
      const Array update = arguments[updates + static_cast<int>(sources_[index])];
      const Array weight = arguments[weights + index], moment = arguments[moments + index];
      if (update.size() != weight.size() || moment.size() != weight.size())
        throw std::invalid_argument("an update does not fit its weight");
      arrays.push_back({update.floats(), weight.floats(), moment.floats(), weight.size(),
                        scalar(arguments[rates + (rates_ == 1 ? 0 : index)]),
                        decayed_[index] ? scalar(arguments[decays + (decays_ == 1 ? 0 : index)]) : nullptr,
                        preconditioned_[index] != 0});
    }
    launch_items(momentum_step, arrays, rule, kChunkThreads, call.stream);
  }

 private:
  std::vector<int64_t> preconditioned_, decayed_, sources_;
  int rates_, decays_, updates_;
  bool nesterov_, decoupled_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(MomentumStep, ms_kfac::MomentumStepKernel)
