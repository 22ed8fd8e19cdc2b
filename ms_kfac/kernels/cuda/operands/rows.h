// Operand loader for rows of an array: the vectors of dense layers, and of any layer in the reduce setting.
#pragma once

#include "../tile/numbers.h"
#include "../tile/symmetric_sum.h"

namespace ms_kfac {

// Contiguous rows. The depth is the number of rows.
struct Rows {
  Numbers numbers;
  int width;
  bool bias;
  int64_t group_stride;

  __host__ __device__ int features() const { return width + (bias ? 1 : 0); }
};

// Loads both operands of a tile of the rows' second moment.
template <int kSide>
class RowOperands {
 public:
  static constexpr bool kLeftDepthFirst = false, kRightDepthFirst = false;
  static constexpr int kElements = SyncedTensor<kSide, false>::kElements;

  __device__ RowOperands(const Rows& rows, const SymmetricTask& task) : rows_(rows), task_(task) {}

  __device__ void load(int depth, bool same, float (&left)[kElements], float (&right)[kElements]) {
    depth_ = depth + Own::depth(threadIdx.x, 0);
    rows_.numbers.visit([&](const auto* numbers) {
      read(numbers, task_.row * kSide, left);
      if (!same) read(numbers, task_.column * kSide, right);
    });
  }
  __device__ float scale(int j) const {
    const int row = depth_ + kStep * j;
    return rows_.numbers.scale * (task_.factors && row < task_.last ? task_.factors[row] : 1.0f);
  }

 private:
  using Own = SyncedTensor<kSide, false>;
  static constexpr int kStep = kThreads / kSide;

  template <typename Number>
  __device__ void read(const Number* numbers, int first, float (&values)[kElements]) const {
    const int feature = first + Own::feature(threadIdx.x, 0);
    const bool inside = feature < rows_.width;
    const float one = rows_.bias && feature == rows_.width ? 1.0f : 0.0f;
    const Number* from =
        numbers + task_.group * rows_.group_stride + static_cast<int64_t>(depth_) * rows_.width + feature;
#pragma unroll
    for (int j = 0; j < kElements; ++j, from += kStep * static_cast<int64_t>(rows_.width)) {
      values[j] = depth_ + kStep * j < task_.last ? one : 0.0f;
      if (inside && depth_ + kStep * j < task_.last) values[j] = as_float(*from);
    }
  }

  const Rows& rows_;
  const SymmetricTask& task_;
  int depth_;  // of the thread's first element in the last load
};

// Sides with a bias have scale 1, so the bias's one stays 1.
template <int kSide>
__device__ inline float finished(const RowOperands<kSide>& operands, int j, float element) {
  return operands.scale(j) * element;
}

}  // namespace ms_kfac
