// How much damping goes to each of two Kronecker factors.
#pragma once

#include <cstdint>

namespace ms_kfac {

// Below any weight that a moving average leaves; keeps 0 / 0 at 0 before the first statistics.
constexpr float kSmallestCount = 1e-30f;

// What a sum of statistics is multiplied by to become their average; 0 before the first ones.
float average_scale(float count);

// Sum of the diagonal of a matrix whose rows are `size` numbers apart.
double diagonal_sum(const float* matrix, int64_t size);

struct SplitDamping {
  float A, G;
};

// sqrt(lambda) pi and sqrt(lambda) / pi with pi^2 = (tr A / dim A) / (tr G / dim G), or 1 where a trace is not positive
// (Martens & Grosse 2015, section 6.3).
SplitDamping pi_split(double trace_A, int64_t dim_A, double trace_G, int64_t dim_G, float damping);

}  // namespace ms_kfac
