// The plans of lag moments that are worth their making, kept from one step of training to the next.
#pragma once

#include <memory>

#include "lag_moments.h"

namespace ms_kfac {

// The lag moments of a window with stride and dilation 1, or null if the other way, which takes `unfolded` nanoseconds,
// is cheaper. The answer depends on the arguments alone, not on what is kept: a sum rounds alike in every step.
std::shared_ptr<const LagMoments> lag_plan(const ImageShape& shape, const Window& window, double unfolded);

}  // namespace ms_kfac
