// Sums of squares of a layer's rows or columns: the diagonals of its Kronecker factors.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

// Adds the diagonal of one side's sum of outer products to `diagonal` (features). It forms neither outer products nor
// patches. For convolutions it squares the images, sums them over samples, and then sums over what each tap sees.
void add_side_diagonal(const LayerSide& side, float* diagonal);

}  // namespace ms_kfac
