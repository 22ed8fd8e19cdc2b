// Launches kernels and turns CUDA errors into exceptions. Only this file uses CUDA's launch syntax.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace ms_kfac {

// CUDA keeps the last error of a thread until it is read. Otherwise launch() would take it for an error of its kernel.
inline void ignore(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
}

inline void check(cudaError_t error, const char* what) {
  ignore(error);
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Runs kernel(arguments...) on a stream. Grids are one-dimensional: kernels find their work by blockIdx.x.
template <typename... Parameters, typename... Values>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream, const Values&... values) {
  // CUDA 11 limits kernel parameters to 4096 bytes.
  static_assert((sizeof(Values) + ... + 0) <= 4000, "too many parameters");
  if (blocks == 0) return;
  if (blocks < 0 || blocks > INT32_MAX)
    throw std::invalid_argument("a launch must have between 0 and 2^31 - 1 blocks, got " + std::to_string(blocks));
#ifdef __CUDACC__
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(values...);
#else
  static_cast<void>(stream);
  emulator::run(dim3(static_cast<unsigned>(blocks)), dim3(threads), [&] { kernel(values...); });
#endif
  check(cudaGetLastError(), "launching a kernel");
}

// Multiprocessors of the current device, which a kernel plans with when it is created. This creates no context. Another
// device may be current in the calls: plans for any number are valid everywhere. So MS_KFAC_MULTIPROCESSORS may
// override it: tests reach the many blocks of a large GPU and the many rounds of a small one.
inline int multiprocessors() {
  if (const char* set = std::getenv("MS_KFAC_MULTIPROCESSORS")) {
    char* end = nullptr;
    const long wanted = std::strtol(set, &end, 10);
    if (end == set || *end != '\0' || wanted < 1 || wanted > 4096)
      throw std::invalid_argument("MS_KFAC_MULTIPROCESSORS must be a whole number from 1 to 4096, got " +
                                  std::string(set));
    return static_cast<int>(wanted);
  }
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "getting the device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "getting the number of multiprocessors");
  return count;
}

// Copies a few numbers to the host and synchronizes the stream. An operator may do so once per step.
template <typename Number>
void read_on_host(const Number* from, int64_t count, Number* to, cudaStream_t stream) {
  check(cudaMemcpyAsync(to, from, count * sizeof(Number), cudaMemcpyDeviceToHost, stream), "copying to the host");
  check(cudaStreamSynchronize(stream), "synchronizing a stream");
}

}  // namespace ms_kfac
