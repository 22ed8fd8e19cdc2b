// Square tiles of a product of two matrices: C = sum over the depth k of left(., k) right(., k)^T.
//
// A block computes one tile. It reads kDepth of both operands into shared memory while it multiplies what it has read
// before. What the operands are - rows, patches of a convolution, matrices - is the business of a class Operands:
//
//   static constexpr bool kLeftDepthFirst, kRightDepthFirst   how threads share an operand out: see Share
//   void load(int depth, bool same, float (&left)[], float (&right)[])
//
// which gives the thread's elements of both operands from that depth on, and zeros beyond their ends; with `same` the
// right operand is the left one, and need not be read. What is to be done with an element once it is there, a function
// finished(operands, j, element) does, so that nothing waits for it before.
#pragma once

#include "precision.h"

namespace ms_kfac {

constexpr int kThreads = 256;

// Which elements of a kSide x kDepth operand a thread reads: element j of kElements is (feature(j), depth(j)). With the
// depth first the lanes of a warp read two rows of neighbouring depths, else neighbouring features of a few depths, and
// a thread stays with its feature.
template <int kSide, bool kDepthFirst>
struct Share {
  static constexpr int kElements = kSide * kDepth / kThreads;
  static constexpr int kAcross = kSide / 8, kStep = kThreads / kSide;

  __device__ static int feature(int thread, int j) {
    return kDepthFirst ? thread / kDepth + (kThreads / kDepth) * j : thread % kAcross + kAcross * (thread / 32);
  }
  __device__ static int depth(int thread, int j) {
    return kDepthFirst ? thread % kDepth : thread % 32 / kAcross + kStep * j;
  }
  // Where element j lies, so that as little as possible of it depends on the thread.
  __device__ static int place(int thread, int j) {
    const int row = feature(thread, 0), first = depth(thread, 0);
    if (kDepthFirst) return ms_kfac::place(row, first) + kThreads * j;
    return ms_kfac::place(row, kStep * j) + first;
  }
};

// Shared memory of a block that computes a tile.
template <int kSide>
struct TileMemory {
  alignas(16) float left[2][kSide * kDepth];
  alignas(16) float right[2][kSide * kDepth];
};

// The same for a block that finds out while it runs which side its tile has. Operands is what else they need.
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

// A block's tile in registers. Eight warps share it out, two by four.
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

  // Calls visit(row, column, element) for the thread's elements; the order is the same in every thread.
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

template <typename Operands>
__device__ inline float finished(const Operands&, int, float element) {
  return element;
}

// Adds the product over the depths [first, last) to the tile. `last` is where the operands end for this block: they
// give zeros beyond. With `same` the right operand is the left one.
template <int kSide, Precision kPrecision, typename Operands>
__device__ void multiply_tile(Operands& operands, int first, int last, bool same, TileMemory<kSide>& memory,
                              Tile<kSide>& tile) {
  using LeftShare = Share<kSide, Operands::kLeftDepthFirst>;
  using RightShare = Share<kSide, Operands::kRightDepthFirst>;
  constexpr int kElements = LeftShare::kElements;
  const int thread = threadIdx.x;
  float left[kElements], right[kElements];
  const auto store = [&](int stage) {
#pragma unroll
    for (int j = 0; j < kElements; ++j)
      memory.left[stage][LeftShare::place(thread, j)] = rounded<kPrecision>(finished(operands, j, left[j]));
    if (same) return;
#pragma unroll
    for (int j = 0; j < kElements; ++j)
      memory.right[stage][RightShare::place(thread, j)] = rounded<kPrecision>(finished(operands, j, right[j]));
  };
  // Begins a step early, to read without multiplying: the code that reads, which is long, is there once.
  bool begun = false;
  int stage = 1;
  for (int depth = first - kDepth; depth < last; depth += kDepth, stage ^= 1) {
    const bool more = depth + kDepth < last;
    if (more) operands.load(depth + kDepth, same, left, right);
    if (begun) {
      const float* of_columns = same ? memory.left[stage] : memory.right[stage];
      multiply<kPrecision>(memory.left[stage] + place(tile.first_row(), 0), of_columns + place(tile.first_column(), 0),
                           thread % 32, tile.sums);
    }
    if (more) store(stage ^ 1);
    begun = true;
    __syncthreads();
  }
}

}  // namespace ms_kfac
