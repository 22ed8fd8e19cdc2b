// Planning of products of shifted images on the host, and whether they pay.
#pragma once

#include "layer_side.h"

namespace ms_kfac {

// How the patches of convolutions are multiplied: as they are, by lags, or the way that costs less.
enum class PatchForm { kCheaper, kUnfolded, kLags };

// The products of a side in that form, or none, which `used()` tells: the side is no convolution with stride and
// dilation 1 and several taps, or needs more products than the tables hold, or they cost more. Refuses kLags where it
// cannot be. Tasks are shared out by share_out().
LagProducts plan_lags(const LayerSide& side, PatchForm form);

// Multiply-adds of all products with what their tiles are padded with.
double work(const LagProducts& lags);

// Splits depths into parts of about `share` multiply-adds.
void share_out(LagProducts& lags, double share);

}  // namespace ms_kfac
