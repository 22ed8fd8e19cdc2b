// Sums of outer products of a layer's rows or columns: the sums behind its Kronecker factors.
#pragma once

#include "columns.h"
#include "rows.h"

namespace ms_kfac {

// Each function adds to both triangles of a symmetric (d, d) matrix, on at most `workers` threads. With a bias every
// vector gets a last coordinate of one, and d includes it.

// Adds sum over r of x_r x_r^T.
void add_row_moment(const Rows& rows, bool bias, float* matrix, int64_t workers);

// Adds sum over n and t of p_nt p_nt^T for a convolution's patches p. Uses lag moments or add_unfolded_moment,
// whichever is estimated to be cheaper.
void add_patch_moment(const Images& images, const Window& window, bool bias, float* matrix, int64_t workers);

// Computes the same sum by unfolding some patches at a time.
void add_unfolded_moment(const Columns& columns, float* matrix, int64_t workers);

}  // namespace ms_kfac
