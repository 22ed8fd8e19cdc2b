// Operand loaders for products with a layer's vectors as one or both operands: sums of a_k b_k^T over the depth k, and
// vectors times a matrix. The caller applies the scales of the arrays.
#pragma once

#include "layer_side.h"

namespace ms_kfac {

// The vectors of one side by position (samples times locations), with all locations even if the factors reduce them.
struct LayerVectors {
  bool of_patches;
  Patches patches;
  Rows rows;
  // Divisors by the taps of the window and of its rows.
  Divisor by_taps, by_columns;

  // Host only. The side must include all its locations.
  static LayerVectors of(const LayerSide& side) {
    LayerVectors vectors{side.of_patches, side.patches, side.rows, {}, {}};
    if (!side.of_patches) return vectors;
    vectors.by_taps = Divisor::of(side.patches.kernel[0] * side.patches.kernel[1]);
    vectors.by_columns = Divisor::of(side.patches.kernel[1]);
    return vectors;
  }
  __host__ __device__ float scale() const { return of_patches ? patches.numbers.scale : rows.numbers.scale; }
  __host__ __device__ int features() const { return of_patches ? patches.features() : rows.features(); }

  // Tap::of() without integer division.
  __device__ Tap tap(int feature) const {
    if (feature >= patches.features()) return {Tap::kNothing, 0};
    const int channel = by_taps.quotient(feature), tap = feature - channel * static_cast<int>(by_taps.divisor);
    if (channel == patches.channels) return {Tap::kOne, 0};
    const int line = by_columns.quotient(tap), row = line * patches.dilation[0],
              column = (tap - line * static_cast<int>(by_columns.divisor)) * patches.dilation[1];
    return Tap::at((channel * patches.height + row) * patches.width + column, row, column);
  }
};

// A contiguous row-major matrix as rows. Their features are its columns.
__device__ inline Rows matrix_rows(const float* matrix, int columns) {
  return {{matrix, NumberType::kFloat32, 1.0f}, columns, false, 0};
}

// Loads a thread's elements: it keeps one feature of rows and moves down `count` of them, from row `first` on.
template <int kSide>
__device__ inline void read_rows(const Rows& rows, int feature, int64_t first, int count,
                                 float (&values)[SyncedTensor<kSide, false>::kElements]) {
  constexpr int kStep = kThreads / kSide;
  const bool inside = feature < rows.width;
  const float one = rows.bias && feature == rows.width ? 1.0f : 0.0f;
  rows.numbers.visit([&](const auto* numbers) {
    const auto* from = numbers + first * rows.width + feature;
#pragma unroll
    for (int j = 0; j < SyncedTensor<kSide, false>::kElements; ++j, from += kStep * static_cast<int64_t>(rows.width)) {
      values[j] = kStep * j < count ? one : 0.0f;
      if (inside && kStep * j < count) values[j] = as_float(*from);
    }
  });
}

// Products of two lists of rows, row by row. Each span of rows gives one product, a matrix of features by features.
// Several spans may use the same rows.
struct Spans {
  Rows left, right;
  int64_t first_left, first_right;  // of the current span
  int step_left, step_right;        // to the next span
  int length, rows;                 // per span; of all spans left
  int count;                        // spans left
  int first_row, first_column;      // first element of the tile
  int group;                        // of patches

  __device__ int present() const { return length < rows ? length : rows; }
  // Called by one thread.
  __device__ void advance() {
    first_left += step_left;
    first_right += step_right;
    rows -= length;
    --count;
  }
};

template <int kSide>
class RowSums {
 public:
  static constexpr bool kLeftDepthFirst = false, kRightDepthFirst = false;
  static constexpr int kElements = SyncedTensor<kSide, false>::kElements;

  // The operands of the current span.
  __device__ explicit RowSums(const Spans& spans) : spans_(spans) {}

  __device__ void load(int depth, bool, float (&left)[kElements], float (&right)[kElements]) const {
    using Own = SyncedTensor<kSide, false>;
    const int feature = Own::feature(threadIdx.x, 0), k = depth + Own::depth(threadIdx.x, 0);
    const int count = spans_.present() - k;
    read_rows<kSide>(spans_.left, spans_.first_row + feature, spans_.first_left + k, count, left);
    read_rows<kSide>(spans_.right, spans_.first_column + feature, spans_.first_right + k, count, right);
  }

 private:
  const Spans& spans_;
};

// Operand loader for the patches of the inputs and the matching pixels of the gradients.
template <int kSide>
class PatchSums {
 public:
  static constexpr bool kLeftDepthFirst = true, kRightDepthFirst = true;
  static constexpr int kElements = SyncedTensor<kSide, true>::kElements;

  // The rows of a span are positions. All threads of the block call it.
  __device__ PatchSums(const LayerVectors& left, const LayerVectors& right, const Spans& span,
                       PatchMemory<kSide>& memory)
      : left_(left.patches), right_(right.patches), span_(span), memory_(memory) {
    for (int i = threadIdx.x; i < kSide; i += kThreads) {
      memory.left[i] = left.tap(span.first_row + i);
      memory.right[i] = right.tap(span.first_column + i);
    }
    __syncthreads();
  }

  __device__ void load(int depth, bool, float (&left)[kElements], float (&right)[kElements]) const {
    const int k = depth + SyncedTensor<kSide, true>::depth(threadIdx.x, 0);
    read(left_, memory_.left, k, left);
    read(right_, memory_.right, k, right);
  }

 private:
  __device__ void read(const Patches& patches, const Tap* taps, int k, float (&values)[kElements]) const {
    const bool there = k < span_.length;
    const Corner corner = Corner::at(patches, span_.group, there ? span_.first_left + k : 0);
    patches.numbers.visit([&](const auto* images) {
#pragma unroll
      for (int j = 0; j < kElements; ++j) {
        const Tap tap = taps[SyncedTensor<kSide, true>::feature(threadIdx.x, j)];
        const float value = tap.offset == Tap::kOne ? 1.0f : seen(patches, images, corner, tap);
        values[j] = there ? value : 0.0f;
      }
    });
  }

  const Patches &left_, &right_;
  const Spans& span_;
  const PatchMemory<kSide>& memory_;
};

// A projection: vectors times a matrix, from position `first` on.
struct Projection {
  LayerVectors vectors;
  const float* matrix;
  int columns;  // of the matrix, which has one row per feature
  int group;
  int64_t first;
  int count, row, column;  // positions; place of the tile

  template <int kSide>
  __device__ void read_matrix(int depth, float (&values)[SyncedTensor<kSide, false>::kElements]) const {
    using Own = SyncedTensor<kSide, false>;
    const int k = depth + Own::depth(threadIdx.x, 0);
    read_rows<kSide>(matrix_rows(matrix, columns), column + Own::feature(threadIdx.x, 0), k, columns - k, values);
  }
};

// Operand loader: rows times a matrix.
template <int kSide>
class RowProjection {
 public:
  static constexpr bool kLeftDepthFirst = true, kRightDepthFirst = false;
  static constexpr int kElements = SyncedTensor<kSide, true>::kElements;

  __device__ explicit RowProjection(const Projection& of) : of_(of) {}

  __device__ void load(int depth, bool, float (&left)[kElements], float (&right)[kElements]) const {
    using Own = SyncedTensor<kSide, true>;
    const Rows& rows = of_.vectors.rows;
    const int k = depth + Own::depth(threadIdx.x, 0), position = of_.row + Own::feature(threadIdx.x, 0);
    const bool inside = k < rows.width;
    const float one = rows.bias && k == rows.width ? 1.0f : 0.0f;
    rows.numbers.visit([&](const auto* numbers) {
      const auto* from = numbers + (of_.first + position) * rows.width + k;
      constexpr int kStep = kThreads / kDepth;
#pragma unroll
      for (int j = 0; j < kElements; ++j, from += kStep * static_cast<int64_t>(rows.width)) {
        left[j] = position + kStep * j < of_.count ? one : 0.0f;
        if (inside && position + kStep * j < of_.count) left[j] = as_float(*from);
      }
    });
    of_.read_matrix<kSide>(depth, right);
  }

 private:
  const Projection& of_;
};

// Operand loader: patches times a matrix. Lanes take adjacent positions, whose pixels are adjacent.
template <int kSide>
class PatchProjection {
 public:
  static constexpr bool kLeftDepthFirst = false, kRightDepthFirst = false;
  static constexpr int kElements = SyncedTensor<kSide, false>::kElements;

  __device__ explicit PatchProjection(const Projection& of) : of_(of) {}

  __device__ void load(int depth, bool, float (&left)[kElements], float (&right)[kElements]) const {
    using Own = SyncedTensor<kSide, false>;
    const LayerVectors& vectors = of_.vectors;
    const int position = of_.row + Own::feature(threadIdx.x, 0);
    const bool there = position < of_.count;
    const Corner corner = Corner::at(vectors.patches, of_.group, there ? of_.first + position : 0);
    vectors.patches.numbers.visit([&](const auto* images) {
#pragma unroll
      for (int j = 0; j < kElements; ++j) {
        const Tap tap = vectors.tap(depth + Own::depth(threadIdx.x, j));
        const float value = tap.offset == Tap::kOne ? 1.0f : seen(vectors.patches, images, corner, tap);
        left[j] = there ? value : 0.0f;
      }
    });
    of_.read_matrix<kSide>(depth, right);
  }

 private:
  const Projection& of_;
};

}  // namespace ms_kfac
