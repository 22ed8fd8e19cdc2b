// A stand-in for a CUDA device, with host memory. Allocations, copies, streams and events are real, all work is
// synchronous, and libraries return handles. All other functions return success and do nothing (stand_in.py).
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t kMemory = size_t{8} << 30;
constexpr size_t kWorkspace = 16;
constexpr int kDeviceToHost = 2;

std::atomic<int64_t> reads{0};
std::atomic<int64_t> bytes_read{0};

int Hand(void** handle) {
  *handle = std::calloc(1, 64);
  return 0;
}

// cudnnConvolution*AlgoPerf_t has 48 bytes. Zeros mean the first algorithm, with success.
int OneAlgorithm(int* count, void* found) {
  *count = 1;
  std::memset(found, 0, 48);
  return 0;
}

}  // namespace

extern "C" {

int cudaGetDeviceCount(int* count) {
  *count = 1;
  return 0;
}

// Offsets of cudaDeviceProp in CUDA 11, which begins with name[256].
int cudaGetDeviceProperties(char* properties, int) {
  auto set = [properties](size_t offset, auto value) { std::memcpy(properties + offset, &value, sizeof value); };
  std::memset(properties, 0, 700);
  set(288, kMemory);
  set(296, size_t{49152});    // shared memory per block
  set(304, 65536);            // registers per block
  set(308, 32);               // warp size
  set(312, size_t{1} << 30);  // maximum pitch
  set(320, 1024);             // threads per block
  for (size_t axis = 0; axis < 3; ++axis) {
    set(324 + 4 * axis, 1024);
    set(336 + 4 * axis, 65535);
  }
  set(352, size_t{65536});  // constant memory
  set(360, 8);              // compute capability 8.6
  set(364, 6);
  set(388, 80);  // multiprocessors
  return 0;
}

int cuDeviceGetAttribute(int* value, int, int) {
  *value = 8;
  return 0;
}

int cudaMemGetInfo(size_t* available, size_t* total) {
  *available = *total = kMemory;
  return 0;
}

// Zero-initialized; untouched pages use no memory. MindSpore frees its pool when the process ends.
int cudaMalloc(void** pointer, size_t size) {
  *pointer = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return *pointer == MAP_FAILED ? 2 : 0;
}

int cudaHostAlloc(void** pointer, size_t size, unsigned) { return cudaMalloc(pointer, size); }

int cudaMemcpy(void* to, const void* from, size_t size, int kind) {
  if (kind == kDeviceToHost) {
    ++reads;
    bytes_read += size;
  }
  std::memmove(to, from, size);
  return 0;
}

int cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, void*) {
  return cudaMemcpy(to, from, size, kind);
}

// The number of reads of device memory by the host so far, and the number of bytes.
int64_t stand_in_reads() { return reads; }
int64_t stand_in_bytes_read() { return bytes_read; }

int cudaMemset(void* to, int value, size_t size) {
  std::memset(to, value, size);
  return 0;
}

int cudaMemsetAsync(void* to, int value, size_t size, void*) { return cudaMemset(to, value, size); }

int cudaEventElapsedTime(float* milliseconds, void*, void*) {
  *milliseconds = 0.001f;
  return 0;
}

const char* cudaGetErrorString(int) { return "stand-in"; }
const char* cudaGetErrorName(int) { return "stand-in"; }
const char* cudnnGetErrorString(int) { return "stand-in"; }

int nvrtcVersion(int* major, int* minor) {
  *major = 11;
  *minor = 6;
  return 0;
}

int cudaStreamCreate(void** stream) { return Hand(stream); }
int cudaStreamCreateWithFlags(void** stream, unsigned) { return Hand(stream); }
int cudaStreamCreateWithPriority(void** stream, unsigned, int) { return Hand(stream); }
int cudaEventCreate(void** event) { return Hand(event); }
int cudaEventCreateWithFlags(void** event, unsigned) { return Hand(event); }

#define HANDS(function) \
  int function(void** handle) { return Hand(handle); }
HANDS(cublasCreate_v2)
HANDS(cudnnCreate)
HANDS(cusolverDnCreate)
HANDS(cusparseCreate)
HANDS(cudnnCreateActivationDescriptor)
HANDS(cudnnCreateConvolutionDescriptor)
HANDS(cudnnCreateDropoutDescriptor)
HANDS(cudnnCreateFilterDescriptor)
HANDS(cudnnCreateOpTensorDescriptor)
HANDS(cudnnCreatePoolingDescriptor)
HANDS(cudnnCreateReduceTensorDescriptor)
HANDS(cudnnCreateTensorDescriptor)

#define FINDS_ALGORITHM(function) \
  int function(void*, void*, void*, void*, void*, int, int* count, void* found) { return OneAlgorithm(count, found); }
FINDS_ALGORITHM(cudnnGetConvolutionForwardAlgorithm_v7)
FINDS_ALGORITHM(cudnnGetConvolutionBackwardDataAlgorithm_v7)
FINDS_ALGORITHM(cudnnGetConvolutionBackwardFilterAlgorithm_v7)
FINDS_ALGORITHM(cudnnFindConvolutionForwardAlgorithm)
FINDS_ALGORITHM(cudnnFindConvolutionBackwardDataAlgorithm)
FINDS_ALGORITHM(cudnnFindConvolutionBackwardFilterAlgorithm)

#define SIZES_CONVOLUTION(function)                                    \
  int function(void*, void*, void*, void*, void*, int, size_t* size) { \
    *size = kWorkspace;                                                \
    return 0;                                                          \
  }
SIZES_CONVOLUTION(cudnnGetConvolutionForwardWorkspaceSize)
SIZES_CONVOLUTION(cudnnGetConvolutionBackwardDataWorkspaceSize)
SIZES_CONVOLUTION(cudnnGetConvolutionBackwardFilterWorkspaceSize)

int cudnnGetReductionIndicesSize(void*, void*, void*, void*, size_t* size) {
  *size = kWorkspace;
  return 0;
}

int cudnnGetReductionWorkspaceSize(void*, void*, void*, void*, size_t* size) {
  *size = kWorkspace;
  return 0;
}

int cudnnGetTensorSizeInBytes(void*, size_t* size) {
  *size = kWorkspace;
  return 0;
}

int cudnnGetFilterSizeInBytes(void*, size_t* size) {
  *size = kWorkspace;
  return 0;
}

int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void*, int, int, void*, void*, void*, void*, void*,
                                                             size_t* size) {
  *size = kWorkspace;
  return 0;
}

int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void*, int, int, void*, void*, size_t* size) {
  *size = kWorkspace;
  return 0;
}

int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void*, int, int, void*, void*, void*, void*, void*, void*, void*,
                                                      size_t* size) {
  *size = kWorkspace;
  return 0;
}

// The eigensolver's status is read back; its other outputs are not written.
int cusolverDnSsyevd_bufferSize(void*, int, int, int, void*, int, void*, int* size) {
  *size = kWorkspace;
  return 0;
}

int cusolverDnSsyevd(void*, int, int, int, void*, int, void*, void*, int, int* verdict) {
  *verdict = 0;
  return 0;
}

}  // extern "C"
