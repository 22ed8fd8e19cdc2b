// Pointers to global memory that are read from shared memory.
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {

// Tells the compiler that a pointer points to global memory. It can't infer that of a pointer that was in shared
// memory, and a generic load is slower.
template <typename T>
__device__ inline T* in_global(T* pointer) {
#ifdef __CUDA_ARCH__
  __builtin_assume(__isGlobal(pointer));
#endif
  return pointer;
}

// The same, and the compiler forgets how the pointer was computed. It then adds 32-bit offsets to the pointer in one
// instruction each, instead of repeating the computation with every offset.
template <typename T>
__device__ inline T* opaque_in_global(T* pointer) {
#ifdef __CUDA_ARCH__
  asm("" : "+l"(pointer));
#endif
  return in_global(pointer);
}

}  // namespace ms_kfac
