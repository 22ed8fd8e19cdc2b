// Launching kernels: the one place that knows of CUDA's syntax for it, and errors as exceptions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace ms_kfac {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Runs kernel(arguments...) for a grid of blocks on a stream. Grids are one-dimensional: kernels find their work by
// blockIdx.x.
template <typename... Parameters, typename... Values>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream, const Values&... values) {
  // Of 4096 bytes that CUDA 11 has for a kernel's parameters.
  static_assert((sizeof(Values) + ... + 0) <= 4000, "too many parameters");
  if (blocks == 0) return;
  if (blocks < 0 || blocks > INT32_MAX)
    throw std::invalid_argument("a launch of " + std::to_string(blocks) + " blocks");
#ifdef __CUDACC__
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(values...);
#else
  static_cast<void>(stream);
  emulator::run(dim3(static_cast<unsigned>(blocks)), dim3(threads), [&] { kernel(values...); });
#endif
  check(cudaGetLastError(), "launching a kernel");
}

// Multiprocessors of the present device.
inline int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "asking for the multiprocessors");
  return count;
}

// Copies a few numbers to the host and waits for them: what an operator may do once a step.
template <typename Number>
void read_on_host(const Number* from, int64_t count, Number* to, cudaStream_t stream) {
  check(cudaMemcpyAsync(to, from, count * sizeof(Number), cudaMemcpyDeviceToHost, stream), "reading on the host");
  check(cudaStreamSynchronize(stream), "waiting for a stream");
}

}  // namespace ms_kfac
