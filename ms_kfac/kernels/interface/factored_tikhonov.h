// Factored Tikhonov regularization: splits the damping between two Kronecker factors. For CPU and GPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace ms_kfac {

// Smaller than any weight that a moving average reaches. It keeps 0 / 0 at 0 before the first statistics.
constexpr float kSmallestCount = 1e-30f;

// The factor that turns a sum of statistics into their average. 0 before the first statistics.
MS_KFAC_HOST_DEVICE inline float average_scale(float count) {
  if (count == 0.0f) return 0.0f;
  return 1.0f / (count < kSmallestCount ? kSmallestCount : count);
}

struct SplitDamping {
  float A, G;
};

// sqrt(lambda) pi and sqrt(lambda) / pi with pi^2 = (tr A / dim A) / (tr G / dim G) (Martens & Grosse 2015, section
// 6.3). pi is 1 if a trace is not positive or `by_traces` is false.
MS_KFAC_HOST_DEVICE inline SplitDamping pi_split(double trace_A, int64_t dim_A, double trace_G, int64_t dim_G,
                                                 float damping, bool by_traces) {
  const bool known = by_traces && trace_A > 0 && trace_G > 0;
  const double pi =
      known ? std::sqrt((trace_A / static_cast<double>(dim_A)) / (trace_G / static_cast<double>(dim_G))) : 1.0;
  const double root = std::sqrt(static_cast<double>(damping));
  return {static_cast<float>(root * pi), static_cast<float>(root / pi)};
}

}  // namespace ms_kfac
