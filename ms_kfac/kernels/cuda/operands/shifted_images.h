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
    const unsigned index = there ? position : 0, sample = region_.by_area.quotient(index);
    const unsigned pixel = index - sample * region_.by_area.divisor, line = region_.by_row.quotient(pixel);
    const int64_t from = task_.group * images_.group_stride + sample * images_.sample_stride + region_.start + pixel +
                         static_cast<int64_t>(line) * region_.beyond;
    factor_ = there && task_.factors ? task_.factors[position] : 1.0f;
    images_.numbers.visit([&](const auto* numbers) {
      read(numbers + from, task_.row * kSide, there, left);
      if (!same) read(numbers + from + region_.shift, region_.column * kSide, there, right);
    });
  }
  __device__ float scale() const { return images_.numbers.scale * factor_; }

 private:
  template <typename Number>
  __device__ void read(const Number* numbers, int first, bool there, float (&values)[kElements]) const {
    constexpr int kStep = kThreads / kDepth;
    const int channel = first + SyncedTensor<kSide, true>::feature(threadIdx.x, 0);
    // Channels left from this one on, visited in steps of kStep; and the distance to the bias's one.
    const int channels = there ? images_.channels - channel : 0;
    const int one = there && images_.bias ? images_.channels - channel : -1;
    // LayerBatch ensures that a pixel's index within the sample fits in 32 bits.
    const int plane = images_.height * images_.width;
    numbers += channels > 0 ? channel * plane : 0;
#pragma unroll
    for (int j = 0; j < kElements; ++j) {
      values[j] = kStep * j == one ? 1.0f : 0.0f;
      if (kStep * j < channels) values[j] = as_float(numbers[kStep * j * plane]);
    }
  }

  const Patches& images_;
  const ImageRegion& region_;
  const SymmetricTask& task_;
  float factor_;  // of the last load
};

// Sides with a bias have scale 1, so the bias's one stays 1.
template <int kSide>
__device__ inline float finished(const ShiftedImages<kSide>& operands, int, float element) {
  return operands.scale() * element;
}

}  // namespace ms_kfac
