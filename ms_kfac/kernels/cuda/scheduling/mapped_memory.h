// Host memory that the device writes, for results that the host reads without waiting.
#pragma once

#include "launch.h"

namespace ms_kfac {

template <typename Number>
class MappedArray {
 public:
  // Zero-initialized. Allocates nothing if the count is 0.
  explicit MappedArray(size_t count) {
    if (count == 0) return;
    check(cudaHostAlloc(&host_, count * sizeof(Number), cudaHostAllocMapped | cudaHostAllocPortable),
          "allocating mapped memory");
    for (size_t i = 0; i < count; ++i) host_[i] = Number{};
    const cudaError_t error = cudaHostGetDevicePointer(&device_, host_, 0);
    if (error == cudaSuccess) return;
    cudaFreeHost(host_);
    check(error, "getting the device pointer of mapped memory");
  }
  // CUDA may already be shut down at process exit, so errors are ignored.
  ~MappedArray() {
    if (host_ != nullptr) cudaFreeHost(host_);
  }
  MappedArray(const MappedArray&) = delete;
  MappedArray& operator=(const MappedArray&) = delete;

  Number* device() const { return device_; }
  // Volatile because the device may write at any time.
  volatile Number& operator[](size_t index) const { return host_[index]; }

 private:
  Number* host_ = nullptr;
  Number* device_ = nullptr;
};

}  // namespace ms_kfac
