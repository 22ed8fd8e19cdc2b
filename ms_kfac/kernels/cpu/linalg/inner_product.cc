#include "inner_product.h"

#include "../threads/multiversion.h"

namespace ms_kfac {

MS_KFAC_CLONES
double inner_product(const float* x, const float* y, int64_t size) {
  // Several partial sums, because a compiler may not reorder a single one.
  constexpr int kLanes = 16;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += static_cast<double>(x[i + lane]) * y[i + lane];
  double total = 0;
  for (; i < size; ++i) total += static_cast<double>(x[i]) * y[i];
  for (double sum : sums) total += sum;
  return total;
}

}  // namespace ms_kfac
