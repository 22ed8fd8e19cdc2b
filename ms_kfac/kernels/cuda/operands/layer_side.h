// One side of a layer's batch, inputs or output gradients: the vectors whose second moment is summed.
#pragma once

#include "../tile/symmetric_sum.h"
#include "lag_blocks.h"
#include "rows.h"
#include "summed_vectors.h"

namespace ms_kfac {

struct LayerSide {
  bool of_patches;
  Patches patches;
  Rows rows;
  // In the reduce setting it computes `rows`; otherwise it is empty.
  SummedVectors summed;
  // Factors of the vectors, (groups, depth); null: all 1.
  const float* vector_factors;
  SymmetricSum sum;
};

// Shared memory of a block, for any of its tasks.
struct SideMemory {
  // Kept in shared memory because a side selected at run time, and a task that the epilogue needs again, would occupy
  // registers.
  LayerSide side;
  SymmetricTask task;
  // The products by lags that the task belongs to, or null. `region` holds the pixels if the operands are images.
  const LagProducts* lags;
  bool of_images;
  ImageRegion region;
  bool joins;  // whether the sum is added to instead of replaced
  union {
    EitherTile<PatchMemory> tiles;
    AssemblyMemory assembly;
  };
};

// Computes a block's tile of one side's second moment and adds it to the sum, or stores it as a product by lags.
// `memory` is the large or the small member of the block's tiles.
template <int kSide, Precision kPrecision, typename Memory>
__device__ void add_second_moment(const SideMemory& block, Memory& memory) {
  const LayerSide& side = block.side;
  const SymmetricTask& task = block.task;
  Tile<kSide> tile;
  if (block.of_images) {
    ShiftedImages<kSide> operands(side.patches, block.region, task);
    multiply_tile<kSide, kPrecision>(operands, task.first, task.last, task.diagonal(), memory.tile, tile);
  } else if (side.of_patches) {
    PatchOperands<kSide> operands(side.patches, task, memory.operands);
    multiply_tile<kSide, kPrecision>(operands, task.first, task.last, task.diagonal(), memory.tile, tile);
  } else {
    RowOperands<kSide> operands(side.rows, task);
    multiply_tile<kSide, kPrecision>(operands, task.first, task.last, task.diagonal(), memory.tile, tile);
  }
  if (block.lags) {
    float* partial = block.lags->partials + task.tile * (kSide * kSide);
    tile.each([&](int i, int j, float& element) { partial[i * kSide + j] = element; });
  } else {
    add_to_sum(side.sum, task, block.joins, tile);
  }
}

// `lags` are those that replace the side's sum, or null.
template <Precision kPrecision>
__device__ void add_second_moment(const LayerSide& side, const LagProducts* lags, bool joins, int64_t block,
                                  SideMemory& memory) {
  if (threadIdx.x == 0) {
    memory.side = side;
    memory.lags = lags;
    memory.joins = joins;
    memory.of_images = lags || (side.of_patches && side.patches.is_pointwise());
    if (lags) {
      const LagTask task(*lags, side.patches, block);
      memory.task = task.tile;
      memory.region = task.region;
    } else {
      memory.task = SymmetricTask::of(side.sum, block, side.vector_factors);
      memory.region = ImageRegion::whole(side.patches, memory.task.column);
    }
  }
  __syncthreads();
  if ((lags ? lags->side : memory.side.sum.side) == 128)
    add_second_moment<128, kPrecision>(memory, memory.tiles.large);
  else
    add_second_moment<64, kPrecision>(memory, memory.tiles.small);
}

}  // namespace ms_kfac
