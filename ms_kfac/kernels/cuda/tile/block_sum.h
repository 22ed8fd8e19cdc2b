// Deterministic sums over the threads of a warp or a block.
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {

// The sum over all lanes, returned in every lane.
template <typename Number>
__device__ Number warp_sum(Number value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}

// The sum over all threads, returned in every thread. All kCount threads of the block call it; kCount is a multiple of
// 32.
template <int kCount, typename Number>
__device__ Number block_sum(Number value) {
  __shared__ Number of_warps[kCount / 32];
  value = warp_sum(value);
  // Other threads may still read the previous result.
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  Number sum = 0;
#pragma unroll
  for (int warp = 0; warp < kCount / 32; ++warp) sum += of_warps[warp];
  return sum;
}

}  // namespace ms_kfac
