#pragma once

#include <cstdint>

namespace ms_kfac {

// Sum of the diagonal of a matrix whose rows are `size` numbers apart.
double diagonal_sum(const float* matrix, int64_t size);

}  // namespace ms_kfac
