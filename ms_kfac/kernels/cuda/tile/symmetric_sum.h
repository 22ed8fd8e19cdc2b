// Sums of outer products, S += sum over k of v_k v_k^T. Tiles of the lower triangle are computed and mirrored. The
// depth is split into parts (split-K) where the tiles alone are too few to fill the GPU. The last block of a tile sums
// the parts in a fixed order, so that the result does not depend on which block was last.
#pragma once

#include "../scheduling/counters.h"
#include "global_memory.h"
#include "tile.h"

namespace ms_kfac {

// A (features, features) sum per group. blocks() blocks compute it, `parts` per tile.
struct SymmetricSum {
  float* matrices;
  int features, side;
  int groups, parts;
  int64_t depth;
  // Workspace of parts * tiles() * side^2 floats if there are several parts, and one counter per tile.
  float* partials;
  unsigned* arrivals;

  __host__ __device__ int tiles_across() const { return (features + side - 1) / side; }
  __host__ __device__ int64_t tiles() const {
    const int64_t across = tiles_across();
    return groups * (across * (across + 1) / 2);
  }
  __host__ __device__ int64_t blocks() const { return tiles() * parts; }
  __host__ __device__ int64_t partial_numbers() const { return parts > 1 ? blocks() * side * side : 0; }
};

// The work of one block.
struct SymmetricTask {
  int64_t tile;
  int part, group, row, column;  // position of the tile, row >= column
  int first, last;               // of the depth, which fits in 32 bits
  // Factors of the vectors, by depth; null: all 1.
  const float* factors;

  // `factors` are those of all groups.
  __host__ __device__ static SymmetricTask of(const SymmetricSum& sum, int64_t block, const float* factors) {
    SymmetricTask task{};
    task.tile = block / sum.parts;
    task.part = static_cast<int>(block % sum.parts);
    const int64_t across = sum.tiles_across(), triangle = across * (across + 1) / 2;
    task.group = static_cast<int>(task.tile / triangle);
    int64_t index = task.tile % triangle;
    // At most as many steps as tiles across, a few dozen.
    while (index > task.row) index -= ++task.row;
    task.column = static_cast<int>(index);
    task.share(sum.depth, sum.parts);
    task.factors = factors ? factors + task.group * sum.depth : nullptr;
    return task;
  }
  // Sets the range of this part of the depth. Ranges begin at multiples of kDepth, to avoid padding between parts.
  __host__ __device__ void share(int64_t depth, int parts) {
    const int64_t pieces = (depth + kDepth - 1) / kDepth, end = (part + 1) * pieces / parts * kDepth;
    first = static_cast<int>(part * pieces / parts * kDepth);
    last = static_cast<int>(end < depth ? end : depth);
  }
  __host__ __device__ bool diagonal() const { return row == column; }
};

// Epilogue: adds a block's tile to the sum or replaces it. With several parts the last block of a tile does so; others
// store their tile.
template <int kSide>
__device__ void add_to_sum(const SymmetricSum& sum, const SymmetricTask& task, bool joins, Tile<kSide>& tile) {
  if (sum.parts > 1) {
    float* own = in_global(sum.partials) + (task.tile * sum.parts + task.part) * (kSide * kSide) + threadIdx.x;
    tile.each([&](int, int, float& element) {
      *own = element;
      own += kThreads;
    });
    if (count_block(sum.arrivals + task.tile) + 1 != static_cast<unsigned>(sum.parts)) return;
    tile.each([](int, int, float& element) { element = 0.0f; });
    for (int part = 0; part < sum.parts; ++part) {
      const float* from = in_global(sum.partials) + (task.tile * sum.parts + part) * (kSide * kSide) + threadIdx.x;
      tile.each([&](int, int, float& element) {
        element += __ldcg(from);
        from += kThreads;
      });
    }
    if (threadIdx.x == 0) sum.arrivals[task.tile] = 0;
  }
  float* matrix = in_global(sum.matrices) + static_cast<int64_t>(task.group) * sum.features * sum.features;
  const int first_row = task.row * kSide, first_column = task.column * kSide;
  tile.each([&](int i, int j, float& element) {
    const int64_t row = first_row + i, column = first_column + j;
    if (row >= sum.features || column > row) return;
    const float value = joins ? matrix[row * sum.features + column] + element : element;
    matrix[row * sum.features + column] = value;
    matrix[column * sum.features + row] = value;
  });
}

}  // namespace ms_kfac
