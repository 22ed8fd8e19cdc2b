// Sums of outer products of a layer's rows or columns: what its Kronecker factors are made of.
#pragma once

#include "columns.h"
#include "rows.h"

namespace ms_kfac {

// Each adds to a symmetric (d, d) matrix, both triangles alike, on at most `workers` threads. With a bias every vector
// has a last coordinate of one, and d counts it.

// sum over r of x_r x_r^T.
void add_row_moment(const Rows& rows, bool bias, float* matrix, int64_t workers);

// sum over n and t of p_nt p_nt^T for a convolution's patches p. Takes the cheaper of the following two.
void add_patch_moment(const Images& images, const Window& window, bool bias, float* matrix, int64_t workers);

// The same by writing out some patches at a time.
void add_unfolded_moment(const Columns& columns, float* matrix, int64_t workers);

}  // namespace ms_kfac
