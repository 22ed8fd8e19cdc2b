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
struct Tap {
  static constexpr int kOne = -1, kNothing = -2;
  int offset;
  int16_t row, column;

  __host__ __device__ static Tap of(const Patches& patches, int feature) {
    const int taps = patches.kernel[0] * patches.kernel[1];
    if (feature >= patches.features()) return {kNothing, 0, 0};
    if (feature == patches.channels * taps) return {kOne, 0, 0};
    const int channel = feature / taps, tap = feature % taps;
    const int row = tap / patches.kernel[1] * patches.dilation[0],
              column = tap % patches.kernel[1] * patches.dilation[1];
    return {(channel * patches.height + row) * patches.width + column, static_cast<int16_t>(row),
            static_cast<int16_t>(column)};
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

// The value that a tap sees: a pixel, or zero in the padding. Not for kOne.
template <typename Number>
__device__ inline float seen(const Patches& patches, const Number* images, const Corner& corner, const Tap& tap) {
  const bool inside = tap.offset >= 0 &&
                      static_cast<unsigned>(corner.row + tap.row) < static_cast<unsigned>(patches.height) &&
                      static_cast<unsigned>(corner.column + tap.column) < static_cast<unsigned>(patches.width);
  return inside ? as_float(images[corner.start + tap.offset]) : 0.0f;
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
      memory.left[i] = Tap::of(patches, task.row * kSide + i);
      memory.right[i] = Tap::of(patches, task.column * kSide + i);
    }
    __syncthreads();
  }

  __device__ void load(int depth, bool same, float (&left)[kElements], float (&right)[kElements]) {
    const int thread = threadIdx.x;
    const int position = depth + SyncedTensor<kSide, true>::depth(thread, 0);
    const bool there = position < task_.last;
    const Corner corner = Corner::at(patches_, task_.group, there ? position : 0);
    factor_ = there ? (task_.factors ? task_.factors[position] : 1.0f) : 0.0f;
    patches_.numbers.visit([&](const auto* images) {
#pragma unroll
      for (int j = 0; j < kElements; ++j)
        left[j] = pixel(images, corner, memory_.left[SyncedTensor<kSide, true>::feature(thread, j)]);
      if (same) return;
#pragma unroll
      for (int j = 0; j < kElements; ++j)
        right[j] = pixel(images, corner, memory_.right[SyncedTensor<kSide, true>::feature(thread, j)]);
    });
  }
  __device__ float scale() const { return patches_.numbers.scale * factor_; }

 private:
  template <typename Number>
  __device__ float pixel(const Number* images, const Corner& corner, const Tap& tap) const {
    return tap.offset == Tap::kOne ? 1.0f : seen(patches_, images, corner, tap);
  }

  const Patches& patches_;
  const SymmetricTask& task_;
  const PatchMemory<kSide>& memory_;
  float factor_;  // of the last load
};

// Sides with a bias have scale 1, so the bias's one stays 1.
template <int kSide>
__device__ inline float finished(const PatchOperands<kSide>& operands, int, float element) {
  return operands.scale() * element;
}

}  // namespace ms_kfac
