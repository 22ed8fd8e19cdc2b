// A stand-in for CUDA's runtime that counts calls, fails on request and keeps the last error, as CUDA does.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <functional>

#define __device__

struct dim3 {
  unsigned x = 1;
  explicit dim3(unsigned x_) : x(x_) {}
};
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorCudartUnloading = 4 };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
using cudaStream_t = void*;
constexpr unsigned cudaHostAllocMapped = 2, cudaHostAllocPortable = 1;

namespace recording {

inline int allocations = 0, frees = 0;
inline cudaError_t next = cudaSuccess, last = cudaSuccess;

// The result of a call: the requested error, once.
inline cudaError_t result() {
  const cudaError_t error = next;
  next = cudaSuccess;
  if (error != cudaSuccess) last = error;
  return error;
}

}  // namespace recording

namespace emulator {
inline void run(dim3, dim3, const std::function<void()>& body) { body(); }
}  // namespace emulator

inline const char* cudaGetErrorString(cudaError_t) { return "the requested error"; }
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = recording::last;
  recording::last = cudaSuccess;
  return error;
}
inline cudaError_t cudaGetDevice(int*) { return recording::result(); }
inline cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int) { return recording::result(); }
inline cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) {
  return recording::result();
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return recording::result(); }
template <typename T>
cudaError_t cudaHostAlloc(T** pointer, size_t size, unsigned) {
  const cudaError_t error = recording::result();
  if (error != cudaSuccess) return error;
  ++recording::allocations;
  *pointer = static_cast<T*>(std::malloc(size));
  // As CUDA, which does not clear it.
  for (size_t i = 0; i < size; ++i) reinterpret_cast<char*>(*pointer)[i] = 0x55;
  return error;
}
template <typename T>
cudaError_t cudaHostGetDevicePointer(T** device, void* host, unsigned) {
  const cudaError_t error = recording::result();
  if (error == cudaSuccess) *device = static_cast<T*>(host);
  return error;
}
inline cudaError_t cudaFreeHost(void* pointer) {
  ++recording::frees;
  std::free(pointer);
  return recording::result();
}
