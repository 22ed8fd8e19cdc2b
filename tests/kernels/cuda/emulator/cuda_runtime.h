// An emulator of CUDA's programming model on the CPU, limited to what the kernels use. The kernels compile as C++ with
// this header instead of NVIDIA's, so that their results can be checked without a GPU.
//
// Several blocks are resident at a time: EMULATOR_BLOCKS, by default 4. Each runs in an OS thread of its own, so that
// blocks race as on a GPU. The threads of a block are fibers of its OS thread: each runs until it waits for others.
// EMULATOR_SEED determines the order of blocks, the order of the threads within a block, and short delays at atomics,
// fences and the beginning of blocks. Shared memory initially holds what an earlier block left.
//
// Blocks that wait for one another forever end the launch with an error. Compiled with EMULATOR_RACES, the emulator
// also finds races that no value shows: see races.h. It cannot show caches or timing.
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
#define __shared__ static thread_local
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

extern __thread uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulator {

// Runs a kernel's body for all threads of all blocks. Throws std::runtime_error for a launch that a GPU would refuse,
// and for one that does not end.
void run(dim3 grid, dim3 block, const std::function<void()>& body);
// Waits for all threads of the block that have not returned.
void wait_for_block();
// Passes one pointer per lane of the warp to `work`. The last lane to arrive runs `work` for all; then all continue.
void with_warp(void* own, void (*work)(void** of_lane));
// Lets other threads and blocks run. A thread that polls must call it.
void pause();
void fence();
void count_synchronization();
// These return the previous value.
unsigned add(unsigned* to, unsigned value);
unsigned long long add(unsigned long long* to, unsigned long long value);
unsigned raise(unsigned* to, unsigned value);

}  // namespace emulator

inline void __syncthreads() { emulator::wait_for_block(); }
inline void __syncwarp(unsigned = 0xffffffffu) {
  emulator::with_warp(nullptr, [](void**) {});
}
inline void __threadfence() { emulator::fence(); }
inline void __threadfence_system() { emulator::fence(); }
inline void __nanosleep(unsigned) { emulator::pause(); }
inline unsigned atomicAdd(unsigned* to, unsigned value) { return emulator::add(to, value); }
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
  return emulator::add(to, value);
}
inline unsigned atomicMax(unsigned* to, unsigned value) { return emulator::raise(to, value); }

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
inline cudaError_t cudaDeviceSynchronize() {
  emulator::count_synchronization();
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
// A small default, so that small problems are split among blocks in the same ways as large ones on a GPU.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 6;
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
