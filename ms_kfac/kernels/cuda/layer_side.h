// One side of a layer's batch, inputs or output gradients: the vectors that its second moment is a sum over.
#pragma once

#include "rows.h"
#include "summed_vectors.h"
#include "symmetric_sum.h"

namespace ms_kfac {

struct LayerSide {
  bool of_patches;
  Patches patches;
  Rows rows;
  // In the reduce setting `rows` are what this makes; else it makes nothing.
  SummedVectors summed;
  // Factors of the vectors, (groups, depth), and of their sum, (groups,); null: ones.
  const float *vector_factors, *sum_factors;
  SymmetricSum sum;
};

// Shared memory of a block, whatever it computes.
struct SideMemory {
  // Read from here where they are used: a side that is chosen while the kernel runs, and a task that is needed again at
  // the end, would take registers in between.
  LayerSide side;
  SymmetricTask task;
  union {
    struct {
      TileMemory<128> tile;
      PatchMemory<128> patches;
    } large;
    struct {
      TileMemory<64> tile;
      PatchMemory<64> patches;
    } small;
  };
};

// Adds a block's share of one side's second moment to its sum; `memory` is large or small of SideMemory.
template <int kSide, Precision kPrecision, typename Memory>
__device__ void add_second_moment(const LayerSide& side, const SymmetricTask& task, Memory& memory) {
  Tile<kSide> tile;
  if (side.of_patches) {
    PatchOperands<kSide> operands(side.patches, task, memory.patches);
    multiply_tile<kSide, kPrecision>(operands, task.first, task.last, task.diagonal(), memory.tile, tile);
  } else {
    RowOperands<kSide> operands(side.rows, task);
    multiply_tile<kSide, kPrecision>(operands, task.first, task.last, task.diagonal(), memory.tile, tile);
  }
  add_to_sum(side.sum, task, tile, side.sum_factors ? side.sum_factors[task.group] : 1.0f);
}

template <Precision kPrecision>
__device__ void add_second_moment(const LayerSide& side, int64_t block, SideMemory& memory) {
  if (threadIdx.x == 0) {
    memory.side = side;
    memory.task = SymmetricTask::of(side.sum, block, side.vector_factors);
  }
  __syncthreads();
  if (memory.side.sum.side == 128)
    add_second_moment<128, kPrecision>(memory.side, memory.task, memory.large);
  else
    add_second_moment<64, kPrecision>(memory.side, memory.task, memory.small);
}

}  // namespace ms_kfac
