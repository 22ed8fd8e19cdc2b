// Weight decay, momentum and learning rate for all parameters, in place.
//
// Attributes:
//
//   preconditioned, decayed    flags, one per parameter
//   rates, decays              numbers of learning rates and of weight decays, each either 1 or one per parameter
//   updates                    number of updates
//   sources                    per parameter, the index of its update
//   nesterov, decoupled        flags
//
// Inputs, float32: momentum, the scale of preconditioned updates, learning rates, weight decays; then the updates, the
// weights and the moments. With a scale of NaN nothing changes. Output: a float32 scalar without meaning. Other
// operators depend on it to run after this one.

#include "../step/momentum_step.h"

#include <cmath>

#include "../operator.h"

namespace {

struct MomentumStepAttributes {
  explicit MomentumStepAttributes(AotExtra& extra)
      : preconditioned(extra.GetAttrIntVec("preconditioned")),
        decayed(extra.GetAttrIntVec("decayed")),
        sources(extra.GetAttrIntVec("sources")),
        rates(static_cast<int>(extra.GetAttrInt("rates"))),
        decays(static_cast<int>(extra.GetAttrInt("decays"))),
        updates(static_cast<int>(extra.GetAttrInt("updates"))),
        nesterov(extra.GetAttrBool("nesterov")),
        decoupled(extra.GetAttrBool("decoupled")) {}
  std::vector<int64_t> preconditioned, decayed, sources;
  int rates, decays, updates;
  bool nesterov, decoupled;
};

float scalar(const ms_kfac::Array& array) {
  if (array.size() != 1) throw std::invalid_argument("expected a scalar");
  return array.floats()[0];
}

}  // namespace

MS_KFAC_OPERATOR(MomentumStep) {
  const int count = static_cast<int>(attributes.preconditioned.size());
  const int rates = 2, decays = rates + attributes.rates, updates = decays + attributes.decays;
  const int weights = updates + attributes.updates, moments = weights + count;
  if (arguments.count() != moments + count + 1)
    throw std::invalid_argument("the number of inputs differs from the attributes");
  const ms_kfac::MomentumRule rule{scalar(arguments[0]), attributes.nesterov, attributes.decoupled};
  const float scale = scalar(arguments[1]);
  // The step is skipped (check_step.cc).
  if (std::isnan(scale)) return;
  std::vector<ms_kfac::MomentumArrays> arrays;
  for (int index = 0; index < count; ++index) {
    const ms_kfac::Array update = arguments[updates + static_cast<int>(attributes.sources[index])];
    const ms_kfac::Array weight = arguments[weights + index];
    const ms_kfac::Array moment = arguments[moments + index];
    if (update.size() != weight.size() || moment.size() != weight.size())
      throw std::invalid_argument("an update does not fit its weight");
    const float rate = scalar(arguments[rates + (attributes.rates == 1 ? 0 : index)]);
    const float decay =
        attributes.decayed[index] ? scalar(arguments[decays + (attributes.decays == 1 ? 0 : index)]) : 0.0f;
    arrays.push_back({update.floats(), weight.floats(), moment.floats(), weight.size(), rate,
                      attributes.preconditioned[index] ? scale : 1.0f, decay});
  }
  ms_kfac::momentum_step(rule, arrays);
}
