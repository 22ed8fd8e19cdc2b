#pragma once

#include <cstdint>

namespace ms_kfac {

// Sum of x[i] y[i], summed in float64.
double inner_product(const float* x, const float* y, int64_t size);

}  // namespace ms_kfac
