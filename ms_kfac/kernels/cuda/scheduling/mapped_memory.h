// Host memory that the device writes, for results that the host reads without waiting.
#pragma once

#include "launch.h"

namespace ms_kfac {

// Allocated on first use, which must be in a call: when a kernel is created, its device need not be current, and CUDA
// would create a context on another one.
template <typename Number>
class MappedArray {
 public:
  explicit MappedArray(size_t count) : count_(count) {}
  // CUDA may already be shut down at process exit.
  ~MappedArray() {
    if (host_ != nullptr) ignore(cudaFreeHost(host_));
  }
  MappedArray(const MappedArray&) = delete;
  MappedArray& operator=(const MappedArray&) = delete;

  // Null if the count is 0.
  Number* device() {
    allocate();
    return device_;
  }
  // Zero at first. Volatile because the device may write at any time.
  volatile Number& operator[](size_t index) {
    allocate();
    return host_[index];
  }

 private:
  void allocate() {
    if (device_ != nullptr || count_ == 0) return;
    if (host_ == nullptr) {
      check(cudaHostAlloc(&host_, count_ * sizeof(Number), cudaHostAllocMapped | cudaHostAllocPortable),
            "allocating mapped memory");
      for (size_t i = 0; i < count_; ++i) host_[i] = Number{};
    }
    check(cudaHostGetDevicePointer(&device_, host_, 0), "getting the device pointer of mapped memory");
  }

  size_t count_;
  Number* host_ = nullptr;
  Number* device_ = nullptr;
};

}  // namespace ms_kfac
