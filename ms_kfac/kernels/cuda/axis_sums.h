// Sums along the middle axis of an array (outer, count, inner): over the channels at every pixel, or over the samples
// for every number of a sample. The array is read once.
#pragma once

#include <algorithm>

#include "numbers.h"
#include "patches.h"
#include "tile.h"

namespace ms_kfac {

struct AxisSums {
  Numbers numbers;
  int64_t outer, count, inner;
  // The numbers of a sum are shared out among parts, which give a sum each, and then among slices of a block's threads.
  int parts, slices;
  int64_t blocks;
  float* sums;  // (parts, outer, inner)

  __host__ __device__ int64_t places() const { return outer * inner; }
  __host__ __device__ int64_t tiles() const {
    const int64_t width = kThreads / slices;
    return (places() + width - 1) / width * parts;
  }
  __host__ __device__ int64_t numbers_of_sums() const { return parts * places(); }

  // Host side, with one part and one slice at first: several where a thread for every sum would leave a GPU idle.
  void share_out(int multiprocessors, bool may_have_parts) {
    const int64_t wanted = 2 * multiprocessors;
    slices = tiles() < wanted && count >= 16 ? 8 : 1;
    // Eight numbers at least for every thread.
    if (may_have_parts && slices > 1)
      parts = static_cast<int>(std::max<int64_t>(std::min(wanted / tiles(), count / (8 * slices)), 1));
    blocks = std::min<int64_t>(tiles(), 2 * wanted);
  }
  // Host side: over the channels of so many images, a group's counting as images of their own.
  static AxisSums over_channels(const Patches& patches, int64_t images, int multiprocessors) {
    const int64_t pixels = static_cast<int64_t>(patches.height) * patches.width;
    AxisSums sums{patches.numbers, images, patches.channels, pixels, 1, 1, 0, nullptr};
    sums.share_out(multiprocessors, false);
    return sums;
  }
};

// Host side: the patches of images whose channels have been summed up, group by group.
inline Patches without_channels(Patches patches, int groups) {
  patches.channels = 1;
  patches.group_stride = static_cast<int64_t>(patches.height) * patches.width;
  patches.sample_stride = groups * patches.group_stride;
  return patches;
}

// The share of one of its blocks. add(sum, outer, k, value) gives the sum with the k-th value along the axis.
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
