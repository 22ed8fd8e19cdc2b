// Counters by which the blocks of one launch find their work and know when others have done theirs.
//
// They are zero when a launch begins, and its last block sets them back to zero: no launch or memset of their own.
// Every kernel that MindSpore creates has a range of its own (counter_memory.h), and MindSpore runs a kernel's calls
// one after the other.
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {
namespace {

// The number of calls before this one by other blocks, the same for all threads of the block. What the block wrote
// before is seen by blocks that come later: thread 0's fences order what the barriers have made it see.
__device__ inline unsigned count_block(unsigned* counter) {
  __shared__ unsigned before;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    before = atomicAdd(counter, 1u);
    __threadfence();
  }
  __syncthreads();
  const unsigned result = before;
  __syncthreads();
  return result;
}

// Waits until so many blocks have counted themselves. They must have been launched before the caller in the order of
// claimed work, or the caller could take their place on the GPU and wait for ever.
__device__ inline void wait_until(unsigned* counter, unsigned count) {
  if (threadIdx.x == 0) {
    while (*static_cast<volatile unsigned*>(counter) < count) __nanosleep(64);
    __threadfence();
  }
  __syncthreads();
}

}  // namespace
}  // namespace ms_kfac
