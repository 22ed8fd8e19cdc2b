// Both sides of a layer's batch in one launch: the vectors of the reduce setting first, where there are any, then the
// sums of outer products.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

struct BatchSides {
  LayerSide inputs, gradients;
  // Blocks that sum vectors up, ahead of all others.
  int64_t vector_blocks;
  // Blocks that have claimed work, summed vectors, and left.
  unsigned* progress;

  __host__ __device__ int64_t blocks() const {
    return vector_blocks + inputs.sum.blocks() + gradients.sum.blocks();
  }
};

constexpr int kProgressCounters = 3;

// A block's share of the sides that are open. All blocks of the launch call it.
template <Precision kPrecision>
__device__ void add_second_moments(const BatchSides& sides, bool inputs_open, bool gradients_open, SideMemory& memory) {
  int64_t block = blockIdx.x;
  const bool ordered = sides.vector_blocks > 0;
  if (ordered) block = count_block(sides.progress);
  if (block < sides.vector_blocks) {
    if (inputs_open) sum_vectors(sides.inputs.summed, block, sides.vector_blocks);
    if (gradients_open) sum_vectors(sides.gradients.summed, block, sides.vector_blocks);
    count_block(sides.progress + 1);
  } else {
    if (ordered) wait_until(sides.progress + 1, static_cast<unsigned>(sides.vector_blocks));
    block -= sides.vector_blocks;
    const int64_t of_inputs = sides.inputs.sum.blocks();
    if (block < of_inputs && inputs_open)
      add_second_moment<kPrecision>(sides.inputs, block, memory);
    else if (block >= of_inputs && gradients_open)
      add_second_moment<kPrecision>(sides.gradients, block - of_inputs, memory);
  }
  if (ordered && count_block(sides.progress + 2) + 1 == gridDim.x && threadIdx.x < kProgressCounters)
    sides.progress[threadIdx.x] = 0;
}

// Plans a batch's launch when the kernel is created, and fills it in for every call.
class BatchPlan {
 public:
  BatchPlan(const LayerBatch& batch, AotExtra& extra);

  int64_t counters() const { return kProgressCounters + plan_.counters; }
  // The sides with their workspaces; the sums are still to be set. Refuses other shapes than the kernel was created for.
  BatchSides sides(const LayerBatch& batch, float* workspace, unsigned* counters) const;

 private:
  int multiprocessors_;
  SidePlan plan_;
};

// The attribute "precision"; refuses what it does not know.
Precision precision_of(AotExtra& extra);

}  // namespace ms_kfac
