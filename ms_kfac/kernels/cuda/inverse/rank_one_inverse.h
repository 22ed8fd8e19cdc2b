// Rank-one updates of many inverses in two launches:
//
//   X <- X - (X u)(X u)' / (1 / weight + u' X u),  u_i = sqrt(scale diagonal_i)
//
// for a symmetric X (Sherman & Morrison): X = P^-1 becomes (P + weight u u')^-1. An update is skipped and reported to
// the host if its u holds NaN or infinity.
#pragma once

#include "../scheduling/array_chunks.h"
#include "../scheduling/counters.h"
#include "../scheduling/item_batch.h"
#include "../tile/block_sum.h"
#include "inverse_failures.h"

namespace ms_kfac {

// Sums over the rows of one block, or of all blocks.
struct RankOneSums {
  double along;     // u' X u
  double trace;     // u' u
  double unusable;  // entries of u that are not finite
};

struct RankOneResult {
  double trace;
  float share;  // 1 / (1 / weight + u' X u)
  bool usable;
};

constexpr int kUpdateThreads = 256;
// Rows per block: four per warp, to keep several loads in flight.
constexpr int kUpdateRows = 32;

struct RankOneUpdate {
  float* inverse;
  const float* diagonal;
  float* product;     // workspace for X u
  RankOneSums* sums;  // workspace of blocks() elements
  RankOneResult* result;
  unsigned* arrivals;
  int* outcome;  // in mapped host memory
  int size;
  float scale, weight;

  __host__ __device__ int64_t blocks() const { return (size + kUpdateRows - 1) / kUpdateRows; }
};

struct NoCommonUpdate {};

namespace {

using UpdateBatch = ItemBatch<RankOneUpdate, NoCommonUpdate>;

// Sums over all threads of the block: for the rows of one block, or the partial sums of all blocks.
__device__ inline RankOneSums sum_over_block(const RankOneSums& of) {
  return {block_sum<kUpdateThreads>(of.along), block_sum<kUpdateThreads>(of.trace),
          block_sum<kUpdateThreads>(of.unusable)};
}

__global__ void __launch_bounds__(kUpdateThreads) rank_one_inverse_multiply(const __grid_constant__ UpdateBatch batch) {
  constexpr int kWarps = kUpdateThreads / 32, kEach = kUpdateRows / kWarps, kColumns = 1024;
  __shared__ float roots[kColumns];
  unsigned block;
  const RankOneUpdate& of = batch.items[batch.find(block)];
  const int lane = threadIdx.x % 32, size = of.size;
  const int first_row = static_cast<int>(block) * kUpdateRows + static_cast<int>(threadIdx.x) / 32 * kEach;
  const float* rows[kEach];
  float products[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    // Warps beyond the last row read it again, because all threads must reach the barriers.
    rows[i] = of.inverse + static_cast<int64_t>(min(first_row + i, size - 1)) * size;
    products[i] = 0.0f;
  }
  for (int first = 0; first < size; first += kColumns) {
    const int count = min(kColumns, size - first);
    __syncthreads();
    for (int j = threadIdx.x; j < count; j += kUpdateThreads) roots[j] = sqrtf(of.scale * of.diagonal[first + j]);
    __syncthreads();
#pragma unroll 4
    for (int j = lane; j < count; j += 32)
#pragma unroll
      for (int i = 0; i < kEach; ++i) products[i] = fmaf(rows[i][first + j], roots[j], products[i]);
  }
  float product = 0.0f;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) products[i] += __shfl_xor_sync(0xffffffffu, products[i], mask);
    if (lane == i) product = products[i];
  }
  RankOneSums sums{0, 0, 0};
  const int row = first_row + lane;
  if (lane < kEach && row < size) {
    of.product[row] = product;
    const float square = of.scale * of.diagonal[row], root = sqrtf(square);
    sums = {static_cast<double>(root) * product, square, isfinite(root) ? 0.0 : 1.0};
  }
  sums = sum_over_block(sums);
  const int blocks = static_cast<int>(of.blocks());
  if (blocks > 1) {
    if (threadIdx.x == 0) of.sums[block] = sums;
    if (count_block(of.arrivals) + 1 != static_cast<unsigned>(blocks)) return;
    sums = {0, 0, 0};
    for (int i = threadIdx.x; i < blocks; i += kUpdateThreads) {
      sums.along += __ldcg(&of.sums[i].along);
      sums.trace += __ldcg(&of.sums[i].trace);
      sums.unusable += __ldcg(&of.sums[i].unusable);
    }
    sums = sum_over_block(sums);
    if (threadIdx.x == 0) *of.arrivals = 0;
  }
  if (threadIdx.x > 0) return;
  const bool usable = sums.unusable == 0;
  *of.result = {sums.trace, static_cast<float>(1.0 / (1.0 / of.weight + sums.along)), usable};
  if (!usable) *of.outcome = kNotFinite;
}

__global__ void __launch_bounds__(kUpdateThreads) rank_one_inverse_subtract(const __grid_constant__ UpdateBatch batch) {
  constexpr int kTogether = 8;
  __shared__ float of_rows[kUpdateRows];
  unsigned block;
  const RankOneUpdate& of = batch.items[batch.find(block)];
  const RankOneResult result = *of.result;
  if (!result.usable) return;
  const int size = of.size, first_row = static_cast<int>(block) * kUpdateRows;
  const int rows = min(kUpdateRows, size - first_row);
  if (threadIdx.x < static_cast<unsigned>(rows)) of_rows[threadIdx.x] = of.product[first_row + threadIdx.x];
  __syncthreads();
  for (int column = threadIdx.x; column < size; column += kUpdateThreads) {
    const float of_column = of.product[column];
    float* elements = of.inverse + static_cast<int64_t>(first_row) * size + column;
    // All loads come before the first store: the compiler cannot rule out that they alias.
    for (int first = 0; first < rows; first += kTogether, elements += static_cast<int64_t>(kTogether) * size) {
      float values[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i)
        if (first + i < rows) values[i] = elements[static_cast<int64_t>(i) * size];
#pragma unroll
      for (int i = 0; i < kTogether; ++i)
        // Rounded like its mirror image, so that X stays symmetric.
        if (first + i < rows)
          elements[static_cast<int64_t>(i) * size] = fmaf(-(of_rows[first + i] * of_column), result.share, values[i]);
    }
  }
}

// Runs all updates.
inline void update_inverses(const std::vector<RankOneUpdate>& updates, cudaStream_t stream) {
  launch_items(rank_one_inverse_multiply, updates, NoCommonUpdate{}, kUpdateThreads, stream);
  launch_items(rank_one_inverse_subtract, updates, NoCommonUpdate{}, kUpdateThreads, stream);
}

}  // namespace

}  // namespace ms_kfac
