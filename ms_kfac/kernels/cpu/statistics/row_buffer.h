// A factor of low rank, kept as rows: those of the newest micro-batch above those of earlier ones.
#pragma once

#include "rows.h"

namespace ms_kfac {

// Writes the first `count` of `rows` to the top of a (d, d) matrix, d = rows.features(), count <= d. If it keeps what
// is there, that moves down by `count` rows, and the last rows drop out. Uses all threads.
void push_rows(const Rows& rows, int64_t count, float* matrix, bool keeps);

}  // namespace ms_kfac
