// Sums of squares of a layer's rows or columns: the diagonals of its Kronecker factors.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

// Adds the diagonal of the sum of outer products of one side to `diagonal` (features). Forms neither those nor patches:
// what a tap of a convolution sees of the squared images, summed over samples first.
void add_side_diagonal(const LayerSide& side, float* diagonal);

}  // namespace ms_kfac
