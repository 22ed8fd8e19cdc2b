// The sums of a capture check: of u v, u^2 and v^2, per group of a layer. Blocks sum parts, and the last block records
// the pass.
#pragma once

#include "../tile/block_sum.h"
#include "../tile/tile.h"
#include "staged_pass.h"

namespace ms_kfac {

// A thread's part.
struct CheckSums {
  static constexpr int kSums = 3;

  double values[kSums] = {0, 0, 0};

  __device__ void add(double u, double v) {
    values[0] += u * v;
    values[1] += u * u;
    values[2] += v * v;
  }
  // Called by all threads of a block: writes the block's part.
  __device__ void write(double* partials, int64_t block) const {
    for (int i = 0; i < kSums; ++i) {
      const double sum = block_sum<kThreads>(values[i]);
      if (threadIdx.x == 0) partials[block * kSums + i] = sum;
    }
  }
};

// Called by all threads of the last block. `partials` is (groups, parts, kSums); each warp takes a group at a time. Not
// inlined: the registers of a kernel's main loop would not suffice for both.
__device__ __noinline__ inline void record_check(const StagedPass& pass, const double* partials, int groups,
                                                 int64_t parts) {
  double product = 0, scale = 0;
  for (int group = threadIdx.x / 32; group < groups; group += kThreads / 32) {
    double sums[CheckSums::kSums] = {0, 0, 0};
    for (int64_t part = threadIdx.x % 32; part < parts; part += 32)
      for (int i = 0; i < CheckSums::kSums; ++i)
        sums[i] += __ldcg(partials + (group * parts + part) * CheckSums::kSums + i);
    for (double& sum : sums) sum = warp_sum(sum);
    if (threadIdx.x % 32 != 0) continue;
    product += sums[0];
    scale += sqrt(sums[1]) * sqrt(sums[2]);
  }
  product = block_sum<kThreads>(product);
  scale = block_sum<kThreads>(scale);
  if (threadIdx.x > 0) return;
  float taken[StagedPass::kMostWeights];
  for (int weight = 0; weight < pass.count; ++weight) taken[weight] = pass.added(weight);
  record_pass(pass.record, taken, pass.count, static_cast<float>(product), static_cast<float>(scale));
}

}  // namespace ms_kfac
