// The interface between a GPU operator and MindSpore.
//
// MindSpore creates a kernel with its attributes and the shapes of its arrays. The kernel then plans its work and
// declares its workspaces. A call checks its arrays, launches on MindSpore's stream and returns. It allocates nothing.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <memory>
#include <vector>

#include "../interface/aot_extra.h"
#include "../interface/arguments.h"
#include "../interface/messages.h"
#include "scheduling/launch.h"

namespace ms_kfac {

// One call: inputs and outputs, workspaces, the stream.
struct Call {
  Arguments arguments;
  void** workspaces;
  cudaStream_t stream;

  template <typename T>
  T* workspace(int index) const {
    return static_cast<T*>(workspaces[index]);
  }
};

// Declares a workspace and returns its index. An empty workspace is declared with 256 bytes.
inline int add_workspace(AotExtra& extra, size_t bytes) {
  extra.workspaces.push_back(bytes > 0 ? bytes : 256);
  return static_cast<int>(extra.workspaces.size()) - 1;
}

// The data that MindSpore keeps per kernel between calls.
template <typename Kernel>
struct KernelData : AotKernelData {
  KernelData(AotExtra& extra, const Arguments& shapes) : kernel(extra, shapes), workspaces(extra.workspaces.size()) {}
  // A call uses the counters and workspaces of the call before, so it begins after it. On one stream it does anyway.
  void enter(cudaStream_t stream) {
    if (called && stream != of_last_call) check(cudaDeviceSynchronize(), "waiting for a call on another stream");
    called = true;
    of_last_call = stream;
  }

  Kernel kernel;
  size_t workspaces;
  bool called = false;
  cudaStream_t of_last_call = nullptr;
};

template <typename Kernel>
int create_kernel(const char* name, int* axes, int64_t** shapes, const char** types, AotExtra* extra) noexcept {
  try {
    extra->workspaces.clear();
    extra->kernel_data = new KernelData<Kernel>(*extra, Arguments(INT_MAX, nullptr, axes, shapes, types));
    return 0;
  } catch (const std::exception& error) {
    return report_error(name, error);
  }
}

template <typename Kernel>
int run_kernel(const char* name, int count, void** data, int* axes, int64_t** shapes, const char** types, void* stream,
               void* extra) noexcept {
  try {
    auto* kernel_data = static_cast<KernelData<Kernel>*>(static_cast<AotExtra*>(extra)->kernel_data);
    const int arrays = count - static_cast<int>(kernel_data->workspaces);
    kernel_data->enter(static_cast<cudaStream_t>(stream));
    kernel_data->kernel.run(
        {Arguments(arrays, data, axes, shapes, types), data + arrays, static_cast<cudaStream_t>(stream)});
    return 0;
  } catch (const std::exception& error) {
    return report_error(name, error);
  }
}

}  // namespace ms_kfac

#define MS_KFAC_EXPORT extern "C" __attribute__((visibility("default")))

// Exports class Kernel as the operator NAME. Kernel has a constructor (AotExtra&, const Arguments& shapes) and a
// function run(const Call&). In the constructor the arrays have no data and their count is unknown.
#define MS_KFAC_OPERATOR(NAME, Kernel)                                                                           \
  MS_KFAC_EXPORT int NAME##Init(int* axes, int64_t** shapes, const char** types, AotExtra* extra) {              \
    return ms_kfac::create_kernel<Kernel>(#NAME, axes, shapes, types, extra);                                    \
  }                                                                                                              \
  MS_KFAC_EXPORT int NAME(int count, void** data, int* axes, int64_t** shapes, const char** types, void* stream, \
                          void* extra) {                                                                         \
    return ms_kfac::run_kernel<Kernel>(#NAME, count, data, axes, shapes, types, stream, extra);                  \
  }
