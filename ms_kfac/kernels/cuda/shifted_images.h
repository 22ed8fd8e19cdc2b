// Images, and the same images shifted, as operands of a tile: a product of channels with channels over some pixels.
#pragma once

#include "patches.h"

namespace ms_kfac {

// A rectangle of pixels of every image, and how far from them the right operand's pixels are; these are in the image,
// too.
struct ImageRegion {
  int start, shift;  // indices of pixels
  int column;        // of the tile
  // From the end of one of its rows to the beginning of the next.
  int beyond;
  Divisor by_area, by_row;

  __host__ __device__ static ImageRegion whole(const Patches& images, int column) {
    return {0, 0, column, 0, images.by_area, images.by_row};
  }
};

// Both operands of a tile. The depth is samples times the region's pixels; after the channels comes the bias's one.
template <int kSide>
class ShiftedImages {
 public:
  static constexpr bool kLeftDepthFirst = true, kRightDepthFirst = true;
  static constexpr int kElements = Share<kSide, true>::kElements;

  __device__ ShiftedImages(const Patches& images, const ImageRegion& region, const SymmetricTask& task)
      : images_(images), region_(region), task_(task) {}

  __device__ void load(int depth, bool same, float (&left)[kElements], float (&right)[kElements]) {
    const int position = depth + Share<kSide, true>::depth(threadIdx.x, 0);
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
    const int channel = first + Share<kSide, true>::feature(threadIdx.x, 0);
    // Channels that there are from this one on, by kStep; and the place of the bias's one.
    const int channels = there ? images_.channels - channel : 0;
    const int one = there && images_.bias ? images_.channels - channel : -1;
    // A pixel's place in the sample has 32 bits, as LayerBatch sees to.
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
  float factor_;  // of what was loaded last
};

// Sides with a bias have the scale 1.
template <int kSide>
__device__ inline float finished(const ShiftedImages<kSide>& operands, int, float element) {
  return operands.scale() * element;
}

}  // namespace ms_kfac
