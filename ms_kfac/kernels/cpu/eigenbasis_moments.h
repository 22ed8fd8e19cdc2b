// Second moments of the samples' gradients in a Kronecker-factored basis.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

// Adds sum over n of (Q_G^T W_n Q_A)^2, squared element by element, to an (e, d) matrix, with the gradient
// W_n = sum over t of g_nt a_nt^T of sample n. Q_A (d, d) and Q_G (e, e) are bases as columns. Two sides of one batch
// and group with all their locations; on at most `workers` threads.
void add_eigenbasis_moments(const LayerSide& inputs, const LayerSide& gradients, int64_t samples, const float* Q_A,
                            const float* Q_G, float* sums, int64_t workers);

}  // namespace ms_kfac
