// Square tiles of a matrix product: C = sum over the depth k of left(., k) right(., k)^T.
//
// A block computes one tile. It loads the next kDepth of both operands into shared memory while it multiplies the
// current ones (double buffering). A class Operands, the operand loader, knows what the operands are: rows, patches of
// a convolution, or matrices. It has
//
//   static constexpr bool kLeftDepthFirst, kRightDepthFirst   how threads split an operand: see SyncedTensor
//   void load(int depth, bool same, float (&left)[], float (&right)[])
//
// load() returns the thread's elements of both operands from `depth` on. With `same` the right operand equals the left
// one and is not loaded. A function finish(operands, same, left, right) transforms elements after they have arrived, so
// that nothing waits for them earlier. Then elements beyond the depth are zero. Rows and columns that the epilogue
// drops may have any values.
#pragma once

#include "precision.h"

namespace ms_kfac {

constexpr int kThreads = 256;
// The greatest depth. Positions have 32 bits, also that of the step after the last.
constexpr int64_t kMostPositions = (int64_t{1} << 31) - kDepth;

// The elements of a kSide x kDepth operand that a thread loads: element j of kElements is (feature(j), depth(j)). With
// kDepthFirst the lanes of a warp read adjacent depths of two rows. Otherwise they read adjacent features of a few
// depths, and a thread stays with its feature.
template <int kSide, bool kDepthFirst>
struct SyncedTensor {
  static constexpr int kElements = kSide * kDepth / kThreads;
  static constexpr int kAcross = kSide / 8, kStep = kThreads / kSide;

  __device__ static int feature(int thread, int j) {
    return kDepthFirst ? thread / kDepth + (kThreads / kDepth) * j : thread % kAcross + kAcross * (thread / 32);
  }
  __device__ static int depth(int thread, int j) {
    return kDepthFirst ? thread % kDepth : thread % 32 / kAcross + kStep * j;
  }
  // Index of element j in shared memory, computed so that little of it depends on the thread.
  template <typename Number>
  __device__ static int place(int thread, int j) {
    const int row = feature(thread, 0), first = depth(thread, 0);
    if (kDepthFirst) return ms_kfac::place<Number>(row, first) + kThreads * j;
    return ms_kfac::place<Number>(row, kStep * j) + first;
  }
};

// Shared memory of a block that computes a tile. Elements in BF16 need half of it.
template <int kSide>
struct TileMemory {
  alignas(16) float left[2][kSide * kDepth];
  alignas(16) float right[2][kSide * kDepth];
};

// The same for a block that learns the side of its tile at run time. Operands is the loader's own shared memory.
template <int kSide, template <int> class Operands>
struct TileWithOperands {
  TileMemory<kSide> tile;
  Operands<kSide> operands;
};
template <template <int> class Operands>
union EitherTile {
  TileWithOperands<128, Operands> large;
  TileWithOperands<64, Operands> small;
};

// A block's tile in registers, split among eight warps, two by four.
template <int kSide>
struct Tile {
  static constexpr int kPieces = kSide / 32;
  float sums[kPieces][kPieces][4];

  __device__ Tile() {
#pragma unroll
    for (auto& row : sums)
#pragma unroll
      for (auto& piece : row)
#pragma unroll
        for (float& element : piece) element = 0.0f;
  }

  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / 128 * (kSide / 2); }
  __device__ static int first_column() { return static_cast<int>(threadIdx.x) / 32 % 4 * (kSide / 4); }

  // Calls visit(row, column, element) for the thread's elements, in the same order in each thread.
  template <typename Visit>
  __device__ void each(const Visit& visit) {
    const LaneInPiece lane = LaneInPiece::of(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
#pragma unroll
      for (int j = 0; j < kPieces; ++j)
#pragma unroll
        for (int element = 0; element < 4; ++element)
          visit(first_row() + 16 * i + lane.row + 8 * (element / 2), first_column() + 8 * j + lane.column + element % 2,
                sums[i][j][element]);
  }
};

template <typename Operands, int kElements>
__device__ inline void finish(const Operands&, bool, float (&)[kElements], float (&)[kElements]) {}

// Multiplies a thread's elements by a factor. Factors are mostly 1.
template <int kElements>
__device__ inline void scale(float factor, bool same, float (&left)[kElements], float (&right)[kElements]) {
  if (factor == 1.0f) return;
#pragma unroll
  for (int j = 0; j < kElements; ++j) left[j] *= factor;
  if (same) return;
#pragma unroll
  for (int j = 0; j < kElements; ++j) right[j] *= factor;
}

// Adds the product over the depths [first, last) to the tile. `last` is where the operands end for this block: loads
// give zeros beyond. With `same` the right operand equals the left one.
template <int kSide, Precision kPrecision, typename Operands>
__device__ void multiply_tile(Operands& operands, int first, int last, bool same, TileMemory<kSide>& memory,
                              Tile<kSide>& tile) {
  using LeftShare = SyncedTensor<kSide, Operands::kLeftDepthFirst>;
  using RightShare = SyncedTensor<kSide, Operands::kRightDepthFirst>;
  using Number = Stored<kPrecision>;
  constexpr int kElements = LeftShare::kElements;
  const int thread = threadIdx.x;
  float left[kElements], right[kElements];
  const auto store = [&](int stage) {
    finish(operands, same, left, right);
    auto* stored_left = reinterpret_cast<Number*>(memory.left[stage]);
    auto* stored_right = reinterpret_cast<Number*>(memory.right[stage]);
#pragma unroll
    for (int j = 0; j < kElements; ++j)
      stored_left[LeftShare::template place<Number>(thread, j)] = rounded<kPrecision>(left[j]);
    if (same) return;
#pragma unroll
    for (int j = 0; j < kElements; ++j)
      stored_right[RightShare::template place<Number>(thread, j)] = rounded<kPrecision>(right[j]);
  };
  // Starts one step early to load without multiplying, so that the long loading code is instantiated only once.
  bool begun = false;
  int stage = 1;
  for (int depth = first - kDepth; depth < last; depth += kDepth, stage ^= 1) {
    const bool more = depth + kDepth < last;
    if (more) operands.load(depth + kDepth, same, left, right);
    if (begun) {
      const auto* of_rows = reinterpret_cast<const Number*>(memory.left[stage]);
      const auto* of_columns = same ? of_rows : reinterpret_cast<const Number*>(memory.right[stage]);
      multiply<kPrecision>(of_rows + tile.first_row() * kDepth, of_columns + tile.first_column() * kDepth, thread % 32,
                           tile.sums);
    }
    if (more) store(stage ^ 1);
    begun = true;
    __syncthreads();
  }
}

}  // namespace ms_kfac
