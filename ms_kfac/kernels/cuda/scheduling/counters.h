// Counters by which the blocks of one launch claim work and wait for one another.
//
// They are zero when a launch begins, and its last block resets them to zero. This needs no extra launch or memset.
// Each kernel that MindSpore creates has its own range of counters (counter_memory.h), and its calls run one after the
// other (operator.h).
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {
namespace {

// Returns the number of earlier calls by other blocks; all threads of the block get the same value. Earlier writes of
// the block are visible to blocks that count later: the barriers order them before the fences of thread 0.
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

// Waits until `count` blocks have counted themselves. Those blocks must have claimed their work before the caller.
// Otherwise the caller could occupy the GPU while they wait for a free multiprocessor: a deadlock.
__device__ inline void wait_until(unsigned* counter, unsigned count) {
  if (threadIdx.x == 0) {
    while (*static_cast<volatile unsigned*>(counter) < count) __nanosleep(64);
    __threadfence();
  }
  __syncthreads();
}

}  // namespace
}  // namespace ms_kfac
