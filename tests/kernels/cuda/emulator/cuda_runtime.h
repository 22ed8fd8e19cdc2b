// An emulator of CUDA's programming model on the CPU, limited to what the kernels use. The kernels compile as C++ with
// this header instead of NVIDIA's, so that their results can be checked without a GPU.
//
// Blocks run one after the other, in ascending order or, with EMULATOR_ORDER=backwards, in descending order. The
// threads of a block are fibers of one OS thread: each runs until it waits for others. Shared memory is static storage
// and initially holds what the previous block left. The emulator cannot show races within a warp that the order of
// fibers hides (two orders are available), caches, or timing.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct int2 {
  int x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulator {

// Runs a kernel's body for all threads of all blocks.
void run(dim3 grid, dim3 block, const std::function<void()>& body);
// Waits for all threads of the block that have not returned.
void wait_for_block();
// Passes one pointer per lane of the warp to `work`. The last lane to arrive runs `work` for all; then all continue.
void with_warp(void* own, void (*work)(void** of_lane));

}  // namespace emulator

inline void __syncthreads() { emulator::wait_for_block(); }
inline void __syncwarp(unsigned = 0xffffffffu) {
  emulator::with_warp(nullptr, [](void**) {});
}
inline void __threadfence() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}

// All 32 lanes take part in a shuffle, as the kernels' masks require.
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  struct Lane {
    T value;
    int mask;
    T result;
  } lane{value, mask, value};
  emulator::with_warp(&lane, [](void** of_lane) {
    for (int i = 0; i < 32; ++i)
      if (of_lane[i] != nullptr) {
        Lane& to = *static_cast<Lane*>(of_lane[i]);
        to.result = static_cast<Lane*>(of_lane[i ^ to.mask])->value;
      }
  });
  return lane.result;
}

template <typename T>
T __shfl_sync(unsigned, T value, int source) {
  struct Lane {
    T value;
    int source;
    T result;
  } lane{value, source, value};
  emulator::with_warp(&lane, [](void** of_lane) {
    for (int i = 0; i < 32; ++i)
      if (of_lane[i] != nullptr) {
        Lane& to = *static_cast<Lane*>(of_lane[i]);
        to.result = static_cast<Lane*>(of_lane[to.source])->value;
      }
  });
  return lane.result;
}

template <typename T, typename U>
T atomicAdd(T* to, U value) {
  const T old = *to;
  *to = old + static_cast<T>(value);
  return old;
}
template <typename T, typename U>
T atomicMax(T* to, U value) {
  const T old = *to;
  if (static_cast<T>(value) > old) *to = static_cast<T>(value);
  return old;
}
template <typename T, typename U>
T atomicExch(T* to, U value) {
  const T old = *to;
  *to = static_cast<T>(value);
  return old;
}
template <typename T, typename U>
T atomicCAS(T* to, U expected, U value) {
  const T old = *to;
  if (old == static_cast<T>(expected)) *to = static_cast<T>(value);
  return old;
}
template <typename T>
T __ldg(const T* from) {
  return *from;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}
inline float __fadd_rn(float a, float b) {
  volatile float sum = a + b;
  return sum;
}
using std::max;
using std::min;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
using cudaStream_t = struct CUstream_st*;
constexpr unsigned cudaHostAllocMapped = 2, cudaHostAllocPortable = 1;

inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "invalid value"; }
inline const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, size);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t) {
  std::memset(to, value, size);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
// A small default, so that small problems are split among blocks in the same ways as large ones on a GPU.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  const char* set = std::getenv("EMULATOR_MULTIPROCESSORS");
  *value = set != nullptr ? std::atoi(set) : 6;
  return cudaSuccess;
}
template <typename T>
cudaError_t cudaHostAlloc(T** pointer, size_t size, unsigned) {
  *pointer = static_cast<T*>(std::calloc(1, size));
  return cudaSuccess;
}
template <typename T>
cudaError_t cudaHostGetDevicePointer(T** device, void* host, unsigned) {
  *device = static_cast<T*>(host);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
