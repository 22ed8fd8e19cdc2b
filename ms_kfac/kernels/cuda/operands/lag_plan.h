// Plans products of shifted images on the host, and decides whether they are cheaper.
#pragma once

#include "layer_side.h"

namespace ms_kfac {

// How patches of convolutions are multiplied: unfolded, by lags, or in the cheaper of the two forms.
enum class PatchForm { kCheaper, kUnfolded, kLags };

// Plans the products of a side by lags; used() is false if there are none. That is the case for a side that is not a
// convolution with stride and dilation 1 and several taps, for a plan that exceeds the tables, and for one that costs
// more. Throws std::invalid_argument if `form` is kLags and the side does not support it. share_out() distributes the
// tasks.
LagProducts plan_lags(const LayerSide& side, PatchForm form);

// Multiply-adds of all products, including the padding of their tiles.
double work(const LagProducts& lags);

// Splits the depth of each product (split-K) into parts of about `share` multiply-adds.
void share_out(LagProducts& lags, double share);

}  // namespace ms_kfac
