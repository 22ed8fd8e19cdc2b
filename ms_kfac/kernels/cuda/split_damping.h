// How much damping goes to each of two Kronecker factors, computed on the device from their sums.
#pragma once

#include <cstdint>
#include <vector>

#include "launch.h"

namespace ms_kfac {

// Below any weight that a moving average leaves; keeps 0 / 0 at 0 before the first statistics.
constexpr float kSmallestCount = 1e-30f;

// What a sum of statistics is multiplied by to become their average; 0 before the first ones.
__host__ __device__ inline float average_scale(float count) {
  return count == 0.0f ? 0.0f : 1.0f / (count > kSmallestCount ? count : kSmallestCount);
}

// What a launch finds out about a factor: its scale, what is added to its diagonal, the trace of the scaled factor.
struct FactorNumbers {
  float scale, damping, trace;
};

struct SplitDamping {
  float A, G;
};

// sqrt(lambda) pi and sqrt(lambda) / pi with pi^2 = (tr A / dim A) / (tr G / dim G), or 1 where a trace is not positive
// (Martens & Grosse 2015, section 6.3).
__device__ inline SplitDamping pi_split(double trace_A, int64_t dim_A, double trace_G, int64_t dim_G, float damping) {
  const bool known = trace_A > 0 && trace_G > 0;
  const double pi = known ? sqrt((trace_A / dim_A) / (trace_G / dim_G)) : 1.0;
  const double root = sqrt(static_cast<double>(damping));
  return {static_cast<float>(root * pi), static_cast<float>(root / pi)};
}

// The two factors of a layer, or of one of its groups: sums and their weights, on the device.
struct FactorPair {
  const float *A, *A_count, *G, *G_count;
  int size_A, size_G;
  FactorNumbers* numbers;  // of A, then of G

  int64_t blocks() const { return 1; }
};

// Fills in the numbers of all pairs. A pair whose A has no statistics gets a damping of 1, so that its damped factors
// are identities.
void split_damping(const std::vector<FactorPair>& pairs, const float* damping, cudaStream_t stream);

}  // namespace ms_kfac
