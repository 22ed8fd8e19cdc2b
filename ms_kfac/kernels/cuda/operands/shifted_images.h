// Operand loader for images and the same images shifted: a product of channels with channels over a set of pixels.
#pragma once

#include "patches.h"

namespace ms_kfac {

// A rectangle of pixels of each image, and the offset of the right operand's pixels, which are also inside the image.
struct ImageRegion {
  int start, shift;  // indices of pixels
  int column;        // of the tile
  // From the end of a row of the rectangle to the beginning of the next.
  int beyond;
  Divisor by_area, by_row;

  __host__ __device__ static ImageRegion whole(const Patches& images, int column) {
    return {0, 0, column, 0, images.by_area, images.by_row};
  }
};

// Loads both operands of a tile. The depth is samples times the region's pixels. The bias's one follows the channels.
template <int kSide>
class ShiftedImages {
 public:
  static constexpr bool kLeftDepthFirst = true, kRightDepthFirst = true;
  static constexpr int kElements = SyncedTensor<kSide, true>::kElements;

  __device__ ShiftedImages(const Patches& images, const ImageRegion& region, const SymmetricTask& task)
      : images_(images), region_(region), task_(task) {}

  __device__ void load(int depth, bool same, float (&left)[kElements], float (&right)[kElements]) {
    const int position = depth + SyncedTensor<kSide, true>::depth(threadIdx.x, 0);
    const bool there = position < task_.last;
    // Beyond the depth the last position is read, with the factor 0. If its product with 0 is NaN, the position itself
    // has made the sum non-finite.
    const unsigned index = there ? position : task_.last - 1, sample = region_.by_area.quotient(index);
    const unsigned pixel = index - sample * region_.by_area.divisor, line = region_.by_row.quotient(pixel);
    const int64_t from = task_.group * images_.group_stride + sample * images_.sample_stride + region_.start + pixel +
                         static_cast<int64_t>(line) * region_.beyond;
    factor_ = there ? images_.numbers.scale : 0.0f;
    if (task_.factors) factor_ *= in_global(task_.factors)[index];
    images_.numbers.visit([&](const auto* numbers) {
      read(numbers + from, task_.row * kSide, left);
      if (!same) read(numbers + from + region_.shift, region_.column * kSide, right);
    });
  }
  // Factor of the vectors of the last load. Sides with a bias have scale 1, so the bias's one stays 1.
  __device__ float factor() const { return factor_; }

 private:
  template <typename Number>
  __device__ void read(const Number* numbers, int first, float (&values)[kElements]) const {
    constexpr int kStep = kThreads / kDepth;
    const int channel = first + SyncedTensor<kSide, true>::feature(threadIdx.x, 0), channels = images_.channels;
    // LayerBatch ensures that a pixel's index within the sample fits in 32 bits.
    const int plane = images_.height * images_.width;
    const Number* from = numbers + min(channel, channels - 1) * plane;
    if (first + kSide <= channels) {
      const int64_t step = kStep * static_cast<int64_t>(plane);
#pragma unroll
      for (int j = 0; j < kElements; ++j) values[j] = as_float(from[j * step]);
      return;
    }
    // Beyond the channels the last one is read, for rows and columns that are not written.
    const int left = max(channels - 1 - channel, 0);
#pragma unroll
    for (int j = 0; j < kElements; ++j) values[j] = as_float(from[min(kStep * j, left) * plane]);
    if (!images_.bias) return;
#pragma unroll
    for (int j = 0; j < kElements; ++j)
      if (channel + kStep * j == channels) values[j] = 1.0f;
  }

  const Patches& images_;
  const ImageRegion& region_;
  const SymmetricTask& task_;
  float factor_;
};

template <int kSide, int kElements>
__device__ inline void finish(const ShiftedImages<kSide>& operands, bool same, float (&left)[kElements],
                              float (&right)[kElements]) {
  scale(operands.factor(), same, left, right);
}

}  // namespace ms_kfac
