// Operand loader for patches of a convolution: an implicit im2col that gathers from the images.
#pragma once

#include "../../interface/window.h"
#include "../tile/divisor.h"
#include "../tile/numbers.h"
#include "../tile/symmetric_sum.h"

namespace ms_kfac {

// Some channels of a batch of images, and the window that moves over them. The depth is samples times locations.
struct Patches {
  Numbers numbers;
  int channels, height, width;
  int64_t sample_stride, group_stride;  // a group's channels follow those of the previous group
  int kernel[2], stride[2], dilation[2], before[2];
  int locations[2];
  // Divisors by the locations per sample and per row.
  Divisor by_area, by_row;
  bool bias;

  __host__ __device__ int features() const { return channels * kernel[0] * kernel[1] + (bias ? 1 : 0); }
  // Whether each patch is one pixel.
  __host__ __device__ bool is_pointwise() const {
    return kernel[0] * kernel[1] == 1 && locations[0] == height && locations[1] == width && stride[0] == 1 &&
           stride[1] == 1 && before[0] == 0 && before[1] == 0;
  }
};

// Offset of a feature's pixel from the upper left corner of its patch.
struct alignas(8) Tap {
  static constexpr int kOne = -1, kNothing = -2;
  int offset;
  int place;  // row and column, 16 bits each, so that a tap is read from shared memory at once

  __host__ __device__ static Tap at(int offset, int row, int column) { return {offset, row << 16 | column}; }
  __host__ __device__ int row() const { return place >> 16; }
  __host__ __device__ int column() const { return place & 0xffff; }

  __host__ __device__ static Tap of(const Patches& patches, int feature) {
    const int taps = patches.kernel[0] * patches.kernel[1];
    if (feature >= patches.features()) return {kNothing, 0};
    if (feature == patches.channels * taps) return {kOne, 0};
    const int channel = feature / taps, tap = feature % taps;
    const int row = tap / patches.kernel[1] * patches.dilation[0],
              column = tap % patches.kernel[1] * patches.dilation[1];
    return at((channel * patches.height + row) * patches.width + column, row, column);
  }
};

// The upper left corner of the patch at a depth.
struct Corner {
  int64_t start;  // index of its pixel, possibly outside the image
  int row, column;

  __host__ __device__ static Corner at(const Patches& patches, int group, int64_t depth) {
    const unsigned sample = patches.by_area.quotient(static_cast<unsigned>(depth));
    const unsigned location = static_cast<unsigned>(depth) - sample * patches.by_area.divisor;
    const unsigned line = patches.by_row.quotient(location);
    const int row = static_cast<int>(line) * patches.stride[0] - patches.before[0];
    const int column =
        static_cast<int>(location - line * patches.by_row.divisor) * patches.stride[1] - patches.before[1];
    const int64_t channel = group * patches.group_stride + sample * patches.sample_stride;
    return {channel + static_cast<int64_t>(row) * patches.width + column, row, column};
  }
};

// The pixel that a tap sees, or zero in the padding. `corner_pixel` points to the corner's pixel, possibly outside the
// image.
template <typename Number>
__device__ inline float seen_pixel(const Patches& patches, const Number* corner_pixel, const Corner& corner,
                                   const Tap& tap) {
  // Without short circuits, so that the load is predicated and needs no branch.
  const bool inside = (static_cast<unsigned>(corner.row + tap.row()) < static_cast<unsigned>(patches.height)) &
                      (static_cast<unsigned>(corner.column + tap.column()) < static_cast<unsigned>(patches.width));
  float value = 0.0f;
  if (inside) value = as_float(corner_pixel[tap.offset]);
  return value;
}

// The same for any tap but kOne.
template <typename Number>
__device__ inline float seen(const Patches& patches, const Number* images, const Corner& corner, const Tap& tap) {
  return tap.offset >= 0 ? seen_pixel(patches, images + corner.start, corner, tap) : 0.0f;
}

template <int kSide>
struct PatchMemory {
  Tap left[kSide], right[kSide];
};

// Loads both operands of a tile of the patches' second moment.
template <int kSide>
class PatchOperands {
 public:
  static constexpr bool kLeftDepthFirst = true, kRightDepthFirst = true;
  static constexpr int kElements = SyncedTensor<kSide, true>::kElements;

  // All threads of the block call it.
  __device__ PatchOperands(const Patches& patches, const SymmetricTask& task, PatchMemory<kSide>& memory)
      : patches_(patches), task_(task), memory_(memory) {
    for (int i = threadIdx.x; i < kSide; i += kThreads) {
      memory.left[i] = tap(task.row * kSide + i);
      memory.right[i] = tap(task.column * kSide + i);
    }
    __syncthreads();
  }

  __device__ void load(int depth, bool same, float (&left)[kElements], float (&right)[kElements]) {
    const int position = depth + SyncedTensor<kSide, true>::depth(threadIdx.x, 0);
    const bool there = position < task_.last;
    const Corner corner = Corner::at(patches_, task_.group, there ? position : 0);
    factor_ = there ? patches_.numbers.scale : 0.0f;
    if (there && task_.factors) factor_ *= in_global(task_.factors)[position];
    patches_.numbers.visit([&](const auto* images) {
      read(images, corner, task_.row * kSide, memory_.left, left);
      if (!same) read(images, corner, task_.column * kSide, memory_.right, right);
    });
  }
  // Factor of the vectors of the last load. Sides with a bias have scale 1, so the bias's one stays 1.
  __device__ float factor() const { return factor_; }

 private:
  // Beyond the patch's pixels the first tap is read: its value is replaced by the bias's one, or its row or column is
  // not written.
  __device__ Tap tap(int feature) const {
    const Tap tap = Tap::of(patches_, feature);
    return tap.offset < 0 ? Tap{0, 0} : tap;
  }

  template <typename Number>
  __device__ void read(const Number* images, const Corner& corner, int first, const Tap* taps,
                       float (&values)[kElements]) const {
    constexpr int kStep = kThreads / kDepth;
    const int feature = SyncedTensor<kSide, true>::feature(threadIdx.x, 0);
    const Number* corner_pixel = opaque_in_global(images + corner.start);
#pragma unroll
    for (int j = 0; j < kElements; ++j)
      values[j] = seen_pixel(patches_, corner_pixel, corner, taps[feature + kStep * j]);
    if (!patches_.bias) return;
    const int bias = patches_.features() - 1 - first;
    if (bias >= kSide) return;
#pragma unroll
    for (int j = 0; j < kElements; ++j)
      if (feature + kStep * j == bias) values[j] = 1.0f;
  }

  const Patches& patches_;
  const SymmetricTask& task_;
  const PatchMemory<kSide>& memory_;
  float factor_;
};

template <int kSide, int kElements>
__device__ inline void finish(const PatchOperands<kSide>& operands, bool same, float (&left)[kElements],
                              float (&right)[kElements]) {
  scale(operands.factor(), same, left, right);
}

}  // namespace ms_kfac
