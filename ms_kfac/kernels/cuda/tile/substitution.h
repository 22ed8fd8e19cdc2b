// Triangular solves with one pivot for many right-hand sides, one per thread.
#pragma once

#include "../inverse/sweep.h"

namespace ms_kfac {

// The right-hand sides of a block: element c for thread t is at [c][t].
using RightHandSides = float[kPanel][kPanel];

// Solves x L^T = b forwards with `triangle` the pivot's columns, or x L = b backwards with its rows, in place. Sixteen
// unknowns at a time are in registers. All threads read the same element of the triangle, which shared memory
// broadcasts.
template <bool kForwards>
__device__ void substitute(const float (&triangle)[kPanel][kPanel], RightHandSides& x) {
  constexpr int kBlock = 16;
  const int thread = threadIdx.x;
  for (int step = 0; step < kPanel / kBlock; ++step) {
    const int first = kForwards ? kBlock * step : kPanel - kBlock * (step + 1);
    const int known = kForwards ? 0 : first + kBlock, end = kForwards ? first : kPanel;
    float own[kBlock];
#pragma unroll
    for (int i = 0; i < kBlock; ++i) own[i] = x[first + i][thread];
    for (int c = known; c < end; ++c) {
      const float solved = x[c][thread];
#pragma unroll
      for (int i = 0; i < kBlock; ++i) own[i] = fmaf(-solved, triangle[c][first + i], own[i]);
    }
#pragma unroll
    for (int nth = 0; nth < kBlock; ++nth) {
      const int i = kForwards ? nth : kBlock - 1 - nth;
      own[i] *= triangle[first + i][first + i];
#pragma unroll
      for (int later = nth + 1; later < kBlock; ++later) {
        const int j = kForwards ? later : kBlock - 1 - later;
        own[j] = fmaf(-own[i], triangle[first + i][first + j], own[j]);
      }
    }
#pragma unroll
    for (int i = 0; i < kBlock; ++i) x[first + i][thread] = own[i];
  }
}

// Copies a pivot's triangle to shared memory. The caller must synchronize the block.
__device__ inline void copy_triangle(const float (&from)[kPanel][kPanel], float (&to)[kPanel][kPanel]) {
  for (int i = threadIdx.x; i < kTileNumbers; i += blockDim.x) (&to[0][0])[i] = (&from[0][0])[i];
}

}  // namespace ms_kfac
