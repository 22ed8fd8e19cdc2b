// Rows of an array as operands of a tile: the vectors of dense layers, and of any layer in the reduce setting.
#pragma once

#include "numbers.h"
#include "tile.h"

namespace ms_kfac {

// Rows without gaps; the depth is their number.
struct Rows {
  Numbers numbers;
  int width;
  bool bias;
  int64_t group_stride;

  __host__ __device__ int features() const { return width + (bias ? 1 : 0); }
};

// Both operands of a tile of the rows' second moment.
template <int kSide>
class RowOperands {
 public:
  static constexpr bool kLeftDepthFirst = false, kRightDepthFirst = false;
  static constexpr int kElements = Share<kSide, false>::kElements;

  // Features count from `row` and from `column`. `factors` of the rows may be null.
  __device__ RowOperands(const Rows& rows, const float* factors, int group, int row, int column, int64_t last)
      : rows_(rows), factors_(factors), start_(group * rows.group_stride), row_(row), column_(column), last_(last) {}

  __device__ void load(int64_t depth, bool same, float (&left)[kElements], float (&right)[kElements]) const {
    rows_.numbers.visit([&](const auto* numbers) {
      read(numbers, depth, row_, left);
      if (!same) read(numbers, depth, column_, right);
    });
  }

 private:
  template <typename Number>
  __device__ void read(const Number* numbers, int64_t depth, int first, float (&values)[kElements]) const {
    const int feature = first + Share<kSide, false>::feature(threadIdx.x, 0);
    const bool inside = feature < rows_.width, one = rows_.bias && feature == rows_.width;
#pragma unroll
    for (int j = 0; j < kElements; ++j) {
      const int64_t row = depth + Share<kSide, false>::depth(threadIdx.x, j);
      const float factor = row < last_ ? (factors_ ? factors_[row] : 1.0f) : 0.0f;
      values[j] = row < last_ && inside
                      ? factor * rows_.numbers.scale * as_float(numbers[start_ + row * rows_.width + feature])
                      : (one ? factor : 0.0f);
    }
  }

  const Rows& rows_;
  const float* factors_;
  int64_t start_;
  int row_, column_;
  int64_t last_;
};

}  // namespace ms_kfac
