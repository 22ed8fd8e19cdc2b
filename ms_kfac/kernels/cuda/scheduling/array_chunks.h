// Elementwise work on arrays. A block handles one chunk; threads use 16-byte accesses where all arrays are aligned to
// 16 bytes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "launch.h"

namespace ms_kfac {

constexpr int kChunkThreads = 256;
// A multiple of 4, so that the chunks of an aligned array are aligned.
constexpr int64_t kChunk = 1 << 14;

__host__ __device__ inline int64_t chunks(int64_t size) { return (size + kChunk - 1) / kChunk; }

// Adjacent elements that one instruction loads or stores.
template <int kCount>
struct alignas(kCount * sizeof(float)) Pack {
  float values[kCount];

  __device__ static Pack load(const float* from) { return *reinterpret_cast<const Pack*>(from); }
  __device__ void store(float* to) const { *reinterpret_cast<Pack*>(to) = *this; }
};

template <typename... Pointers>
__device__ bool aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) | ...) & 15) == 0;
}

// Calls visit(count, first) for `count` adjacent elements from index `first` on. `count` is an integral_constant of 4
// or 1.
template <typename Visit>
__device__ void visit_chunk(unsigned chunk, int64_t size, bool by_four, const Visit& visit) {
  int64_t first = chunk * kChunk;
  const int64_t last = first + kChunk < size ? first + kChunk : size;
  if (by_four) {
    const int64_t end = last - last % 4;
    for (int64_t i = first + 4 * threadIdx.x; i < end; i += 4 * kChunkThreads)
      visit(std::integral_constant<int, 4>{}, i);
    first = end;
  }
  for (int64_t i = first + threadIdx.x; i < last; i += kChunkThreads) visit(std::integral_constant<int, 1>{}, i);
}

}  // namespace ms_kfac
