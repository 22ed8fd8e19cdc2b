#include "factor_damping.h"

#include <algorithm>
#include <cmath>

namespace ms_kfac {

float average_scale(float count) { return count == 0.0f ? 0.0f : 1.0f / std::max(count, kSmallestCount); }

double diagonal_sum(const float* matrix, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += matrix[i * size + i];
  return sum;
}

SplitDamping pi_split(double trace_A, int64_t dim_A, double trace_G, int64_t dim_G, float damping) {
  const bool known = trace_A > 0 && trace_G > 0;
  const double pi = known ? std::sqrt((trace_A / dim_A) / (trace_G / dim_G)) : 1.0;
  const double root = std::sqrt(static_cast<double>(damping));
  return {static_cast<float>(root * pi), static_cast<float>(root / pi)};
}

}  // namespace ms_kfac
