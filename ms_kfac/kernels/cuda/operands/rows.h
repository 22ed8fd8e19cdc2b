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
    const bool whole = depth + kDepth <= task_.last;
    rows_.numbers.visit([&](const auto* numbers) {
      read(numbers, whole, task_.row * kSide, left);
      if (!same) read(numbers, whole, task_.column * kSide, right);
    });
  }
  // Sides with a bias have scale 1, so the bias's one stays 1.
  __device__ void finish(bool same, float (&left)[kElements], float (&right)[kElements]) const {
    scale(rows_.numbers.scale, same, left, right);
    if (task_.factors == nullptr) return;
    const float* factors = in_global(task_.factors);
    const int last = task_.last - 1;
#pragma unroll
    for (int j = 0; j < kElements; ++j) {
      const float factor = factors[min(depth_ + kStep * j, last)];
      left[j] *= factor;
      if (!same) right[j] *= factor;
    }
  }

 private:
  using Own = SyncedTensor<kSide, false>;
  static constexpr int kStep = kThreads / kSide;

  template <typename Number>
  __device__ void read(const Number* numbers, bool whole, int first, float (&values)[kElements]) const {
    const int feature = first + Own::feature(threadIdx.x, 0), width = rows_.width;
    // Threads beyond the features read the last one, for rows and columns that are not written.
    const Number* from =
        numbers + task_.group * rows_.group_stride + static_cast<int64_t>(depth_) * width + min(feature, width - 1);
    // In 32 bits: the sum of outer products has width^2 elements, so the width has far fewer bits.
    const int step = kStep * width;
    from = opaque_in_global(from);
    if (whole) {
#pragma unroll
      for (int j = 0; j < kElements; ++j) values[j] = as_float(from[j * static_cast<int64_t>(step)]);
    } else {
#pragma unroll
      for (int j = 0; j < kElements; ++j) {
        values[j] = 0.0f;
        if (depth_ + kStep * j < task_.last) values[j] = as_float(from[j * static_cast<int64_t>(step)]);
      }
    }
    if (feature != width || !rows_.bias) return;
#pragma unroll
    for (int j = 0; j < kElements; ++j) values[j] = depth_ + kStep * j < task_.last ? 1.0f : 0.0f;
  }

  const Rows& rows_;
  const SymmetricTask& task_;
  int depth_;  // of the thread's first element in the last load
};

template <int kSide, int kElements>
__device__ inline void finish(const RowOperands<kSide>& operands, bool same, float (&left)[kElements],
                              float (&right)[kElements]) {
  operands.finish(same, left, right);
}

}  // namespace ms_kfac
