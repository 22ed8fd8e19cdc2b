// Reduces the middle axis of an array (outer, count, inner), reading the array once. The axis is the channels of each
// pixel, or the samples.
#pragma once

#include <algorithm>

#include "../operands/patches.h"
#include "numbers.h"
#include "tile.h"

namespace ms_kfac {

struct AxisSums {
  Numbers numbers;
  int64_t outer, count, inner;
  // A sum is split among `parts` blocks, with one result per part, and within a block among `slices` of its threads.
  int parts, slices;
  int64_t blocks;
  float* sums;  // (parts, outer, inner)

  __host__ __device__ int64_t places() const { return outer * inner; }
  __host__ __device__ int64_t tiles() const {
    const int64_t width = kThreads / slices;
    return (places() + width - 1) / width * parts;
  }
  __host__ __device__ int64_t numbers_of_sums() const { return parts * places(); }

  // Host only. Expects parts = slices = 1. Splits the sums where one thread per sum would leave the GPU idle.
  void share_out(int multiprocessors, bool may_have_parts) {
    const int64_t wanted = 2 * multiprocessors;
    slices = tiles() < wanted && count >= 16 ? 8 : 1;
    // Each thread then sums at least eight elements.
    if (may_have_parts && slices > 1)
      parts = static_cast<int>(std::max<int64_t>(std::min(wanted / tiles(), count / (8 * slices)), 1));
    blocks = std::min<int64_t>(tiles(), 2 * wanted);
  }
  // Host only. Sums over the channels of `images` images. Each group of a sample counts as an image.
  static AxisSums over_channels(const Patches& patches, int64_t images, int multiprocessors) {
    const int64_t pixels = static_cast<int64_t>(patches.height) * patches.width;
    AxisSums sums{patches.numbers, images, patches.channels, pixels, 1, 1, 0, nullptr};
    sums.share_out(multiprocessors, false);
    return sums;
  }
};

// Host only. The patches of images whose channels have been summed within each group.
inline Patches without_channels(Patches patches, int groups) {
  patches.channels = 1;
  patches.group_stride = static_cast<int64_t>(patches.height) * patches.width;
  patches.sample_stride = groups * patches.group_stride;
  return patches;
}

// Computes the part of block `block`. add(sum, outer, k, value) returns `sum` updated with the k-th value along the
// axis.
template <typename Add>
__device__ void sum_axis(const AxisSums& of, int64_t block, const Add& add) {
  __shared__ float of_slices[kThreads];
  const int width = kThreads / of.slices, column = threadIdx.x % width, slice = threadIdx.x / width;
  const int64_t tiles = of.tiles();
  for (int64_t tile = block; tile < tiles; tile += of.blocks) {
    const int64_t part = tile % of.parts, place = tile / of.parts * width + column;
    const bool inside = place < of.places();
    float sum = 0.0f;
    if (inside) {
      const int64_t first = part * of.count / of.parts + slice, last = (part + 1) * of.count / of.parts;
      const int64_t outer = place / of.inner, start = outer * of.count * of.inner + place % of.inner;
      of.numbers.visit([&](const auto* numbers) {
#pragma unroll 8
        for (int64_t k = first; k < last; k += of.slices)
          sum = add(sum, outer, k, of.numbers.scale * as_float(numbers[start + k * of.inner]));
      });
    }
    if (of.slices > 1) {
      of_slices[threadIdx.x] = sum;
      __syncthreads();
      if (slice == 0)
        for (int other = 1; other < of.slices; ++other) sum += of_slices[other * width + column];
      __syncthreads();
    }
    if (inside && slice == 0) of.sums[part * of.places() + place] = sum;
  }
}

__device__ inline void sum_squares(const AxisSums& of, int64_t block) {
  sum_axis(of, block, [](float sum, int64_t, int64_t, float value) { return fmaf(value, value, sum); });
}

}  // namespace ms_kfac
