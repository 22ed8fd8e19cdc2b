// Second moments of a layer's two sides, each weighted by the other's norm.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

// Adds, over all samples and locations, sum |g|^2 a a^T to Phi and sum |a|^2 g g^T to Psi, both symmetric; returns
// sum |a|^2 |g|^2. On at most `workers` threads. Two sides of one batch and group.
double add_trace_restricted(const LayerSide& inputs, const LayerSide& gradients, float* Phi, float* Psi,
                            int64_t workers);

}  // namespace ms_kfac
