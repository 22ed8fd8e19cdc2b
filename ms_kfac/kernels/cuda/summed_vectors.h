// The vectors of the reduce setting: a sample's inputs or gradients summed over its locations, times a factor
// (Eschenhagen et al. 2023, section 3.3). A warp makes one number.
#pragma once

#include "patches.h"
#include "reduction.h"

namespace ms_kfac {

// From images, or from rows of which `locations` follow one another for every sample, to (groups, samples, width).
struct SummedVectors {
  bool of_patches;
  Patches patches;  // without a bias
  Numbers numbers;
  int groups, samples, locations, width;
  float factor;
  float* vectors;

  __host__ __device__ int64_t count() const { return static_cast<int64_t>(groups) * samples * width; }
};

// The share of one of `blocks` blocks.
__device__ inline void sum_vectors(const SummedVectors& of, int64_t block, int64_t blocks) {
  const int lane = threadIdx.x % 32, warps = kThreads / 32;
  const int64_t count = of.count();
  for (int64_t index = block * warps + threadIdx.x / 32; index < count; index += blocks * warps) {
    const int feature = static_cast<int>(index % of.width);
    const int64_t sample = index / of.width % of.samples;
    const int group = static_cast<int>(index / of.width / of.samples);
    float sum = 0.0f;
    if (of.of_patches) {
      const Tap tap = Tap::of(of.patches, feature);
      of.patches.numbers.visit([&](const auto* images) {
        for (int location = lane; location < of.locations; location += 32)
          sum += seen(of.patches, images, Corner::at(of.patches, group, sample * of.locations + location), tap);
      });
      sum *= of.patches.numbers.scale;
    } else {
      of.numbers.visit([&](const auto* numbers) {
        for (int location = lane; location < of.locations; location += 32)
          sum += as_float(numbers[(sample * of.locations + location) * of.width + feature]);
      });
      sum *= of.numbers.scale;
    }
    sum = warp_sum(sum);
    if (lane == 0) of.vectors[index] = of.factor * sum;
  }
}

}  // namespace ms_kfac
