// MindSpore's elementwise CUDA kernels that decide the control flow of a step: comparisons, counters, gates. Names and
// the numbers of BinaryOpType are those that libmindspore_gpu.so imports from libcuda_ops.so.
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

struct CUstream_st;
enum cudaError { cudaSuccess = 0 };
enum ReduceType_t : int;

enum class BinaryOpType {
  kGreater = 0,
  kLess = 1,
  kEqual = 2,
  kGreaterEqual = 3,
  kLessEqual = 4,
  kNotEqual = 5,
  kMaximum = 8,
  kMinimum = 9,
  kAdd = 10,
  kSub = 11,
  kMul = 12,
  kDiv = 13,
  kRealDiv = 15,
  kFloorMod = 20,
  kFloorDiv = 26
};

namespace {

template <BinaryOpType op, typename T>
auto Apply(T x, T y) {
  if constexpr (op == BinaryOpType::kGreater) return x > y;
  if constexpr (op == BinaryOpType::kLess) return x < y;
  if constexpr (op == BinaryOpType::kEqual) return x == y;
  if constexpr (op == BinaryOpType::kGreaterEqual) return x >= y;
  if constexpr (op == BinaryOpType::kLessEqual) return x <= y;
  if constexpr (op == BinaryOpType::kNotEqual) return x != y;
  if constexpr (op == BinaryOpType::kMaximum) return x > y ? x : y;
  if constexpr (op == BinaryOpType::kMinimum) return x < y ? x : y;
  if constexpr (op == BinaryOpType::kAdd) return static_cast<T>(x + y);
  if constexpr (op == BinaryOpType::kSub) return static_cast<T>(x - y);
  if constexpr (op == BinaryOpType::kMul) return static_cast<T>(x * y);
  if constexpr (op == BinaryOpType::kDiv || op == BinaryOpType::kRealDiv) return static_cast<float>(x) / y;
  if constexpr (op == BinaryOpType::kFloorDiv) return static_cast<T>(std::floor(static_cast<double>(x) / y));
  if constexpr (op == BinaryOpType::kFloorMod) {
    return static_cast<T>(x - y * static_cast<T>(std::floor(static_cast<double>(x) / y)));
  }
}

// Index of the element of a broadcast operand that corresponds to element `position` of the output.
int64_t Place(int64_t position, const std::vector<int64_t>& output, const std::vector<int64_t>& input) {
  int64_t place = 0;
  int64_t stride = 1;
  for (size_t axis = 0; axis < output.size(); ++axis) {
    const int64_t index = position % output[output.size() - 1 - axis];
    position /= output[output.size() - 1 - axis];
    const int64_t size = axis < input.size() ? input[input.size() - 1 - axis] : 1;
    place += size == 1 ? 0 : index * stride;
    stride *= size;
  }
  return place;
}

}  // namespace

template <BinaryOpType op, typename X, typename Y, typename Z>
cudaError BinaryOpWithBroadcastCudaFunc(bool, const std::vector<int64_t>& x_shape, const std::vector<int64_t>& y_shape,
                                        const std::vector<int64_t>& z_shape, X* x, Y* y, Z* z, size_t, CUstream_st*) {
  int64_t count = 1;
  for (int64_t size : z_shape) count *= size;
  for (int64_t position = 0; position < count; ++position) {
    z[position] = Apply<op, X>(x[Place(position, z_shape, x_shape)], y[Place(position, z_shape, y_shape)]);
  }
  return cudaSuccess;
}

template <typename From, typename To>
cudaError Cast(int count, const From* from, To* to, CUstream_st*) {
  for (int position = 0; position < count; ++position) to[position] = static_cast<To>(from[position]);
  return cudaSuccess;
}

template <typename T>
cudaError CalAssignAdd(size_t count, T* to, const T* value, T* output, const uint32_t&, CUstream_st*) {
  for (size_t position = 0; position < count; ++position) output[position] = to[position] += value[position];
  return cudaSuccess;
}

template <typename T>
cudaError CalSelect(const bool* condition, const T* x, const T* y, T* z, size_t count, CUstream_st*) {
  for (size_t position = 0; position < count; ++position) z[position] = condition[position] ? x[position] : y[position];
  return cudaSuccess;
}

// Only sums: a step needs no other reduction of integers. The axes of the shape alternate between reduced and kept.
template <typename T>
cudaError ArrayReduce(T* input, const std::vector<size_t>& shape, bool first_reduced, ReduceType_t, T*, T* output,
                      CUstream_st*) {
  size_t kept = 1;
  size_t count = 1;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    count *= shape[axis];
    if ((axis % 2 == 0) != first_reduced) kept *= shape[axis];
  }
  for (size_t place = 0; place < kept; ++place) output[place] = 0;
  for (size_t position = 0; position < count; ++position) {
    size_t rest = position;
    size_t place = 0;
    size_t stride = 1;
    for (size_t axis = shape.size(); axis-- > 0; rest /= shape[axis]) {
      if ((axis % 2 == 0) == first_reduced) continue;
      place += rest % shape[axis] * stride;
      stride *= shape[axis];
    }
    output[place] += input[position];
  }
  return cudaSuccess;
}

#define INSTANTIATE(op, T, Z)                                                                                          \
  template cudaError BinaryOpWithBroadcastCudaFunc<BinaryOpType::op, T, T, Z>(                                         \
      bool, const std::vector<int64_t>&, const std::vector<int64_t>&, const std::vector<int64_t>&, T*, T*, Z*, size_t, \
      CUstream_st*)
#define COMPARES(op)          \
  INSTANTIATE(op, int, bool); \
  INSTANTIATE(op, float, bool)
#define COMPUTES(op)         \
  INSTANTIATE(op, int, int); \
  INSTANTIATE(op, float, float)
COMPARES(kGreater);
COMPARES(kLess);
COMPARES(kEqual);
COMPARES(kGreaterEqual);
COMPARES(kLessEqual);
COMPARES(kNotEqual);
COMPUTES(kMaximum);
COMPUTES(kMinimum);
COMPUTES(kAdd);
COMPUTES(kSub);
COMPUTES(kMul);
COMPUTES(kFloorMod);
COMPUTES(kFloorDiv);
INSTANTIATE(kDiv, float, float);
INSTANTIATE(kRealDiv, float, float);

#define CASTS(From, To) template cudaError Cast<From, To>(int, const From*, To*, CUstream_st*)
CASTS(bool, int);
CASTS(bool, float);
CASTS(int, bool);
CASTS(int, float);
CASTS(float, bool);
CASTS(float, int);

template cudaError ArrayReduce<int>(int*, const std::vector<size_t>&, bool, ReduceType_t, int*, int*, CUstream_st*);
template cudaError CalAssignAdd<int>(size_t, int*, const int*, int*, const uint32_t&, CUstream_st*);
template cudaError CalSelect<int>(const bool*, const int*, const int*, int*, size_t, CUstream_st*);
template cudaError CalSelect<float>(const bool*, const float*, const float*, float*, size_t, CUstream_st*);
