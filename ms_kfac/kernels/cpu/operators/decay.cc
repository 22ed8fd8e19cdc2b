// Lets the past of statistics fade: multiplies each array by the factor of its owner, in place, when it is due.
//
// Inputs: due (int32 scalar), factors (float32, one an owner), then the arrays (float32). Output: a float32 that
// stands for its having run.

#include "../operator.h"
#include "../threads.h"

namespace {

struct DecayAttributes {
  explicit DecayAttributes(AotExtra& extra) : owners(extra.GetAttrIntVec("owners")) {}
  std::vector<int64_t> owners;
};

}  // namespace

MS_KFAC_OPERATOR(Decay) {
  if (arguments[0].integers()[0] == 0) return;
  const ms_kfac::Array factors = arguments[1];
  const auto arrays = static_cast<int64_t>(attributes.owners.size());
  if (arguments.count() != arrays + 3) throw std::invalid_argument("not one array for each owner");
  for (int64_t owner : attributes.owners)
    if (owner < 0 || owner >= factors.size()) throw std::out_of_range("an owner without a factor");
  ms_kfac::parallel_for(arrays, [&](int64_t index) {
    const float factor = factors.floats()[attributes.owners[index]];
    if (factor == 1.0f) return;
    const ms_kfac::Array array = arguments[static_cast<int>(index) + 2];
    float* values = array.floats();
    const int64_t size = array.size();
    for (int64_t i = 0; i < size; ++i) values[i] *= factor;
  });
}
