// Factored Tikhonov damping: splits the damping between two Kronecker factors, on the device, from their sums.
#pragma once

#include <vector>

#include "../../interface/factored_tikhonov.h"
#include "../scheduling/launch.h"

namespace ms_kfac {

// Results per factor: its scale, the damping that is added to its diagonal, and the trace of the scaled factor.
struct FactorNumbers {
  float scale, damping, trace;
};

// The two factors of a layer, or of one of its groups: sums and their weights, as device pointers.
struct FactorPair {
  const float *A, *A_count, *G, *G_count;
  int size_A, size_G;
  bool by_traces;
  FactorNumbers* numbers;  // of A, then of G

  int64_t blocks() const { return 1; }
};

// Fills in the numbers of all pairs. If A has no statistics, both dampings are 1, so that the damped factors are
// identities.
void split_damping(const std::vector<FactorPair>& pairs, const float* damping, cudaStream_t stream);

}  // namespace ms_kfac
