// EKFAC: second moments of per-sample gradients in a Kronecker-factored basis.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

// Adds sum over n of (Q_G^T W_n Q_A)^2, squared elementwise, to an (e, d) matrix. W_n = sum over t of g_nt a_nt^T is
// the gradient of sample n. The columns of Q_A (d, d) and Q_G (e, e) are the bases. `inputs` and `gradients` are the
// two sides of one batch and group, with all their locations. Uses at most `workers` threads.
void add_eigenbasis_moments(const LayerSide& inputs, const LayerSide& gradients, int64_t samples, const float* Q_A,
                            const float* Q_G, float* sums, int64_t workers);

}  // namespace ms_kfac
