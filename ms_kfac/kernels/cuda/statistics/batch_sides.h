// Both sides of a layer's batch in one launch. Operators are made of these phases:
//   1. the vectors of the reduce setting, if any;
//   2. the sums of outer products;
//   3. the assembly of the inputs' sum, where it is computed by lags. It waits for phase 2.
// In each phase the blocks of the inputs come before those of the gradients.
#pragma once

#include "../operands/lag_plan.h"
#include "../operands/layer_batch.h"
#include "../scheduling/phases.h"
#include "staged_pass.h"

namespace ms_kfac {

struct BatchSides {
  LayerSide inputs, gradients;
  // Blocks of the phase that sums vectors.
  int64_t vector_blocks;
  // Replaces the inputs' sum where lags.used().
  LagProducts lags;

  __host__ __device__ int64_t input_blocks() const { return lags.used() ? lags.tasks() : inputs.sum.blocks(); }
  int64_t sum_blocks() const { return input_blocks() + gradients.sum.blocks(); }
  int64_t assembly_blocks() const {
    return AssemblyTask::count(lags, inputs.patches.kernel[0] * inputs.patches.kernel[1]);
  }
  // Whether any phase waits for another.
  bool ordered() const { return vector_blocks > 0 || lags.used(); }
};

__device__ inline void sum_vectors(const BatchSides& sides, SidesTaken taken, int64_t block) {
  if (taken.inputs != Taking::kNothing) sum_vectors(sides.inputs.summed, block, sides.vector_blocks);
  if (taken.gradients != Taking::kNothing) sum_vectors(sides.gradients.summed, block, sides.vector_blocks);
}

template <Precision kPrecision>
__device__ void add_second_moments(const BatchSides& sides, SidesTaken taken, int64_t block, SideMemory& memory) {
  const int64_t of_inputs = sides.input_blocks();
  const bool input = block < of_inputs;
  const Taking taking = input ? taken.inputs : taken.gradients;
  if (taking == Taking::kNothing) return;
  add_second_moment<kPrecision>(input ? sides.inputs : sides.gradients,
                                input && sides.lags.used() ? &sides.lags : nullptr, taking == Taking::kJoining,
                                input ? block : block - of_inputs, memory);
}

__device__ inline void assemble_inputs(const BatchSides& sides, SidesTaken taken, int64_t block, SideMemory& memory) {
  if (taken.inputs == Taking::kNothing) return;
  assemble(sides.lags, sides.inputs.patches, taken.inputs == Taking::kJoining, sides.inputs.sum.matrices, block,
           memory.assembly);
}

// Blocks of the phase that sums vectors: each sums at least one element per warp, and there are no more than the GPU
// runs concurrently.
int64_t vector_blocks(const LayerSide& inputs, const LayerSide& gradients, int multiprocessors);

// Plans the launch for a layer's batch when the kernel is created, and fills in addresses in each call.
class BatchPlan {
 public:
  // Vectors with factors require the form kUnfolded.
  BatchPlan(const LayerBatch& batch, AotExtra& extra, PatchForm form = PatchForm::kUnfolded);

  int64_t counters() const { return plan_.counters; }
  // Returns the sides with their workspaces. The caller sets the sums. Throws std::invalid_argument if the shapes
  // differ from those at creation.
  BatchSides sides(const LayerBatch& batch, float* workspace, unsigned* counters) const;
  int multiprocessors() const { return multiprocessors_; }

 private:
  int multiprocessors_;
  LagProducts lags_;
  int64_t depth_;  // of inputs
  int image_[2];
  SidePlan plan_;
};

// Reads the optional attribute "patches", "unfolded" or "lags". Throws std::invalid_argument for an unknown value.
PatchForm patch_form_of(AotExtra& extra);

}  // namespace ms_kfac
