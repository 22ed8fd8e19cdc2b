// Memory of the host that the device writes, for what the host gets to know without waiting.
#pragma once

#include "launch.h"

namespace ms_kfac {

template <typename Number>
class MappedArray {
 public:
  // Zeros; none where the count is 0.
  explicit MappedArray(size_t count) {
    if (count == 0) return;
    check(cudaHostAlloc(&host_, count * sizeof(Number), cudaHostAllocMapped | cudaHostAllocPortable),
          "allocating mapped memory");
    for (size_t i = 0; i < count; ++i) host_[i] = Number{};
    const cudaError_t error = cudaHostGetDevicePointer(&device_, host_, 0);
    if (error == cudaSuccess) return;
    cudaFreeHost(host_);
    check(error, "looking for mapped memory");
  }
  // At the end of a process CUDA may be gone, which is no error here.
  ~MappedArray() {
    if (host_ != nullptr) cudaFreeHost(host_);
  }
  MappedArray(const MappedArray&) = delete;
  MappedArray& operator=(const MappedArray&) = delete;

  Number* device() const { return device_; }
  // The device may write at any time.
  volatile Number& operator[](size_t index) const { return host_[index]; }

 private:
  Number* host_ = nullptr;
  Number* device_ = nullptr;
};

}  // namespace ms_kfac
