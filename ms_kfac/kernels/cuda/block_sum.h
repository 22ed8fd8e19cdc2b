// Sums over the threads of a block, in an order that does not depend on how they run.
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {

// The same for all kThreads, a power of two, that call it.
template <int kThreads>
__device__ double block_sum(double value) {
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  __syncthreads();
  const double sum = sums[0];
  // The next sum is written where others may still read this one.
  __syncthreads();
  return sum;
}

}  // namespace ms_kfac
