// Sums over the threads of a warp or a block, always in the same order.
#pragma once

#include "tile.h"

namespace ms_kfac {

// The sum, in every lane.
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}

// The sum, in every thread of a block of kThreads.
__device__ inline float block_sum(float value) {
  __shared__ float of_warps[kThreads / 32];
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += of_warps[warp];
  __syncthreads();
  return sum;
}

}  // namespace ms_kfac
