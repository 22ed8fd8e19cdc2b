// A cache of the plans of lag moments that are worth their cost. It persists across training steps.
#pragma once

#include <memory>

#include "lag_moments.h"

namespace ms_kfac {

// Returns the lag moments of a window with stride and dilation 1, or null if unfolding the patches is cheaper.
// `unfolded` is the cost of unfolding in nanoseconds. The answer depends only on the arguments and not on the cache, so
// a sum rounds the same in every step.
std::shared_ptr<const LagMoments> lag_plan(const ImageShape& shape, const Window& window, double unfolded);

}  // namespace ms_kfac
