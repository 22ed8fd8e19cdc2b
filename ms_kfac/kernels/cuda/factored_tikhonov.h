// How much damping goes to each of two Kronecker factors, computed on the device from their sums.
#pragma once

#include <vector>

#include "../interface/factored_tikhonov.h"
#include "launch.h"

namespace ms_kfac {

// What a launch finds out about a factor: its scale, what is added to its diagonal, the trace of the scaled factor.
struct FactorNumbers {
  float scale, damping, trace;
};

// The two factors of a layer, or of one of its groups: sums and their weights, on the device.
struct FactorPair {
  const float *A, *A_count, *G, *G_count;
  int size_A, size_G;
  bool by_traces;
  FactorNumbers* numbers;  // of A, then of G

  int64_t blocks() const { return 1; }
};

// Fills in the numbers of all pairs. A pair whose A has no statistics gets a damping of 1, so that its damped factors
// are identities.
void split_damping(const std::vector<FactorPair>& pairs, const float* damping, cudaStream_t stream);

}  // namespace ms_kfac
