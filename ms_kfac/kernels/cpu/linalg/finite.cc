#include "finite.h"

#include <cmath>

#include "../threads/multiversion.h"

namespace ms_kfac {
namespace {

// Zero times a number is zero, unless that number is NaN or infinite. Many partial sums, because a single one would be
// a serial chain of additions.
MS_KFAC_CLONES
float zero_or_nan(const float* __restrict values, int64_t count, float scale) {
  constexpr int kSums = 64;
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums)
    for (int lane = 0; lane < kSums; ++lane) sums[lane] += 0.0f * (scale * values[i + lane]);
  for (; i < count; ++i) sums[0] += 0.0f * (scale * values[i]);
  float sum = 0.0f;
  for (float lane : sums) sum += lane;
  return sum;
}

}  // namespace

bool all_finite(const float* values, int64_t count, float scale) {
  return !std::isnan(zero_or_nan(values, count, scale));
}

bool upper_finite(const float* matrix, int64_t stride, int size, float scale) {
  for (int64_t i = 0; i < size; ++i)
    if (!all_finite(matrix + i * stride + i, size - i, scale)) return false;
  return true;
}

}  // namespace ms_kfac
