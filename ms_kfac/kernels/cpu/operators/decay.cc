// Lets the past of statistics fade: multiplies arrays by one factor, in place, when it is due.
//
// Inputs: due (int32 scalar), factor (float32 scalar), then the arrays (float32). Output: a float32 scalar, 0.

#include "../operator.h"
#include "../threads.h"

namespace {

struct DecayAttributes {
  explicit DecayAttributes(AotExtra&) {}
};

}  // namespace

MS_KFAC_OPERATOR(Decay) {
  (void)attributes;
  if (arguments[0].integers()[0] == 0) return;
  const float factor = arguments[1].floats()[0];
  ms_kfac::parallel_for(arguments.count() - 3, [&](int64_t index) {
    const ms_kfac::Array array = arguments[static_cast<int>(index) + 2];
    float* values = array.floats();
    const int64_t size = array.size();
    for (int64_t i = 0; i < size; ++i) values[i] *= factor;
  });
}
