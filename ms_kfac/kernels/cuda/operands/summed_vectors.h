// The vectors of the reduce setting: a sample's inputs or gradients summed over its locations, times a factor
// (Eschenhagen et al. 2023, section 3.3).
#pragma once

#include "../tile/block_sum.h"
#include "patches.h"

namespace ms_kfac {

// Sums images, or `locations` consecutive rows per sample, to (groups, samples, width).
struct SummedVectors {
  bool of_patches;
  Patches patches;  // without a bias
  Numbers numbers;
  int groups, samples, locations, width;
  float factor;
  float* vectors;

  __host__ __device__ int64_t count() const { return static_cast<int64_t>(groups) * samples * width; }
};

// From images: one warp per element.
__device__ inline void sum_patches(const SummedVectors& of, int64_t warp, int64_t warps) {
  const int lane = threadIdx.x % 32;
  for (int64_t index = warp; index < of.count(); index += warps) {
    const int64_t sample = index / of.width % of.samples;
    const int group = static_cast<int>(index / of.width / of.samples);
    const Tap tap = Tap::of(of.patches, static_cast<int>(index % of.width));
    float sum = 0.0f;
    of.patches.numbers.visit([&](const auto* images) {
      for (int location = lane; location < of.locations; location += 32)
        sum += seen(of.patches, images, Corner::at(of.patches, group, sample * of.locations + location), tap);
    });
    sum = warp_sum(of.patches.numbers.scale * sum);
    if (lane == 0) of.vectors[index] = of.factor * sum;
  }
}

// From rows: one warp computes adjacent elements of one sample.
__device__ inline void sum_rows(const SummedVectors& of, int64_t warp, int64_t warps) {
  const int64_t across = (of.width + 31) / 32;
  for (int64_t piece = warp; piece < across * of.samples; piece += warps) {
    const int64_t sample = piece / across, feature = piece % across * 32 + threadIdx.x % 32;
    if (feature >= of.width) continue;
    float sum = 0.0f;
    of.numbers.visit([&](const auto* numbers) {
      const auto* from = numbers + sample * of.locations * of.width + feature;
#pragma unroll 8
      for (int location = 0; location < of.locations; ++location)
        sum += as_float(from[location * static_cast<int64_t>(of.width)]);
    });
    of.vectors[sample * of.width + feature] = of.factor * of.numbers.scale * sum;
  }
}

// Computes the part of block `block` of `blocks`.
__device__ inline void sum_vectors(const SummedVectors& of, int64_t block, int64_t blocks) {
  const int64_t of_block = kThreads / 32, warp = block * of_block + threadIdx.x / 32;
  if (of.of_patches)
    sum_patches(of, warp, blocks * of_block);
  else
    sum_rows(of, warp, blocks * of_block);
}

}  // namespace ms_kfac
