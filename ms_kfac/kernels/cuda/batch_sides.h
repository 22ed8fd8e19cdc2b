// Both sides of a layer's batch in one launch. Phases that operators are made of: the vectors of the reduce setting,
// where there are any; the sums of outer products; where inputs have products by lags in the place of a sum, the
// assembly of those, which waits for the sums. A phase's blocks are those of inputs, then those of gradients.
#pragma once

#include <type_traits>

#include "lag_plan.h"
#include "layer_batch.h"
#include "phases.h"
#include "staged_pass.h"

namespace ms_kfac {

struct BatchSides {
  LayerSide inputs, gradients;
  // Of the phase that sums vectors up.
  int64_t vector_blocks;
  // In the place of the inputs' sum, where they are used.
  LagProducts lags;

  __host__ __device__ int64_t input_blocks() const { return lags.used() ? lags.tasks() : inputs.sum.blocks(); }
  int64_t sum_blocks() const { return input_blocks() + gradients.sum.blocks(); }
  int64_t assembly_blocks() const {
    return AssemblyTask::count(lags, inputs.patches.kernel[0] * inputs.patches.kernel[1]);
  }
  // Whether a phase waits for another.
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

// Plans a batch's launch when the kernel is created, and fills it in for every call.
class BatchPlan {
 public:
  // Vectors with factors need the form kUnfolded.
  BatchPlan(const LayerBatch& batch, AotExtra& extra, PatchForm form = PatchForm::kUnfolded);

  int64_t counters() const { return plan_.counters; }
  // The sides with their workspaces; the sums are still to be set. Refuses other shapes than the kernel was created
  // for.
  BatchSides sides(const LayerBatch& batch, float* workspace, unsigned* counters) const;
  int multiprocessors() const { return multiprocessors_; }

 private:
  int multiprocessors_;
  LagProducts lags_;
  int64_t depth_;  // of inputs
  int image_[2];
  SidePlan plan_;
};

// The attribute "precision"; refuses what it does not know.
Precision precision_of(AotExtra& extra);

// What choose(constant) gives for the precision as a constant: one of a template's three kernels.
template <typename Choose>
auto with_precision(Precision precision, const Choose& choose) {
  switch (precision) {
    case Precision::kTf32:
      return choose(std::integral_constant<Precision, Precision::kTf32>{});
    case Precision::kBfloat16:
      return choose(std::integral_constant<Precision, Precision::kBfloat16>{});
    default:
      return choose(std::integral_constant<Precision, Precision::kFloat32>{});
  }
}

// The attribute "patches", which need not be there: "unfolded" or "lags"; refuses what it does not know.
PatchForm patch_form_of(AotExtra& extra);

}  // namespace ms_kfac
