// TKFAC: second moments of a layer's two sides, each vector weighted by the squared norm of the other side's.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

// Adds sum |g|^2 a a^T to Phi and sum |a|^2 g g^T to Psi, over all samples and locations. Both stay symmetric. Returns
// sum |a|^2 |g|^2. `inputs` and `gradients` are the two sides of one batch and group. Uses at most `workers` threads.
double add_trace_restricted(const LayerSide& inputs, const LayerSide& gradients, float* Phi, float* Psi,
                            int64_t workers);

}  // namespace ms_kfac
