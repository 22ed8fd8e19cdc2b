// Both sides of a layer's batch in one launch. Phases that operators are made of: the vectors of the reduce setting,
// where there are any; the sums of outer products. A phase's blocks are those of inputs, then those of gradients.
#pragma once

#include "layer_batch.h"
#include "phases.h"

namespace ms_kfac {

// Which sides a gate asks for.
struct Asked {
  bool inputs, gradients;

  // From a gate's code; all of them unless they are gated separately.
  __device__ static Asked of(int gate, bool separate) {
    if (gate <= 0) return {false, false};
    return {!separate || (gate & kInputs) != 0, !separate || (gate & kGradients) != 0};
  }
  __device__ bool nothing() const { return !inputs && !gradients; }
};

struct BatchSides {
  LayerSide inputs, gradients;
  // Of the phase that sums vectors up.
  int64_t vector_blocks;

  int64_t sum_blocks() const { return inputs.sum.blocks() + gradients.sum.blocks(); }
};

__device__ inline void sum_vectors(const BatchSides& sides, Asked asked, int64_t block) {
  if (asked.inputs) sum_vectors(sides.inputs.summed, block, sides.vector_blocks);
  if (asked.gradients) sum_vectors(sides.gradients.summed, block, sides.vector_blocks);
}

template <Precision kPrecision>
__device__ void add_second_moments(const BatchSides& sides, Asked asked, int64_t block, SideMemory& memory) {
  const int64_t of_inputs = sides.inputs.sum.blocks();
  const bool input = block < of_inputs;
  if (input ? !asked.inputs : !asked.gradients) return;
  add_second_moment<kPrecision>(input ? sides.inputs : sides.gradients, input ? block : block - of_inputs, memory);
}

// Plans a batch's launch when the kernel is created, and fills it in for every call.
class BatchPlan {
 public:
  BatchPlan(const LayerBatch& batch, AotExtra& extra);

  int64_t counters() const { return plan_.counters; }
  // The sides with their workspaces; the sums are still to be set. Refuses other shapes than the kernel was created
  // for.
  BatchSides sides(const LayerBatch& batch, float* workspace, unsigned* counters) const;
  int multiprocessors() const { return multiprocessors_; }

 private:
  int multiprocessors_;
  SidePlan plan_;
};

// The attribute "precision"; refuses what it does not know.
Precision precision_of(AotExtra& extra);

}  // namespace ms_kfac
