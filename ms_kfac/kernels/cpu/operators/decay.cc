// Lets the past of statistics fade: multiplies each array by the factor of its owner, in place, when it is due.
// What waits for a flag is not written while it waits.

#include "../../interface/fading_arguments.h"
#include "../operator.h"
#include "../threads.h"

using DecayAttributes = ms_kfac::FadingAttributes;

MS_KFAC_OPERATOR(Decay) {
  if (arguments[0].integers()[0] == 0) return;
  const float* factors = arguments[1].floats();
  const std::vector<ms_kfac::FadingPart> parts = ms_kfac::fading_parts(arguments, attributes);
  ms_kfac::parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t index) {
    const ms_kfac::FadingPart& part = parts[index];
    const float factor = factors[part.owner];
    if (factor == 1.0f || (part.flag != nullptr && !(*part.flag > 0.0f))) return;
    for (int64_t i = 0; i < part.size; ++i) part.values[i] *= factor;
  });
}
