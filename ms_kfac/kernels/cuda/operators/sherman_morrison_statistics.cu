// Adds one batch to the diagonals of a layer's factors, and to the factors while they are wanted, when the gate is
// open, in one launch.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_sum, G_sum, A_diagonal, G_diagonal, counts (4,) (float32, written in
// place), full (float32 scalar). Output: a float32 scalar that means nothing. Formulas:
// ms_kfac/ops/sherman_morrison_statistics.py.

#include "../batch_sides.h"
#include "../counter_memory.h"
#include "../diagonals.h"
#include "../operator.h"

namespace ms_kfac {
namespace {

// Diagonals come last: their blocks then find all squares done.
enum Phase { kVectors, kSquares, kSums, kAssembly, kDiagonals, kPhases };

struct Launch {
  BatchSides sides;
  BatchDiagonals diagonals;
  Phases<kPhases> phases;
  const int32_t* gate;
  bool separate;
  const float* full;
  float* counts;
  float samples, locations;
};

__device__ void count_batch(const Launch& launch, Asked asked, bool full) {
  const float weights[2] = {asked.inputs ? launch.samples : 0.0f,
                            asked.gradients ? launch.samples * launch.locations : 0.0f};
  for (int side : {0, 1}) {
    if (full) launch.counts[side] += weights[side];
    launch.counts[2 + side] += weights[side];
  }
}

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) sherman_morrison_statistics(const __grid_constant__ Launch launch) {
  __shared__ SideMemory memory;
  const Asked asked = Asked::of(*launch.gate, launch.separate);
  if (asked.nothing()) return;
  const bool full = *launch.full > 0.0f;
  if (blockIdx.x == 0 && threadIdx.x == 0) count_batch(launch, asked, full);
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kVectors:
      sum_vectors(launch.sides, asked, claim.index);
      phases.finish(kVectors);
      break;
    case kSquares:
      phases.wait_for(kVectors);
      sum_squares(launch.diagonals, asked, claim.index);
      phases.finish(kSquares);
      break;
    case kSums:
      if (!full) break;
      phases.wait_for(kVectors);
      add_second_moments<kPrecision>(launch.sides, asked, claim.index, memory);
      phases.finish(kSums);
      break;
    case kAssembly:
      if (!full) break;
      phases.wait_for(kSums);
      assemble_inputs(launch.sides, asked, claim.index, memory);
      break;
    default:
      phases.wait_for(kSquares);
      add_diagonals(launch.diagonals, asked, claim.index);
  }
  phases.leave();
}

class ShermanMorrisonStatisticsKernel {
 public:
  ShermanMorrisonStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(read_geometry(extra)),
        precision_(precision_of(extra)),
        separate_(extra.GetAttrBool("separate")),
        plan_(LayerBatch(geometry_, shapes[0], shapes[1]), extra, patch_form_of(extra)),
        counters_(plan_.counters() + Phases<kPhases>::kCounters) {
    const LayerBatch batch(geometry_, shapes[0], shapes[1]);
    numbers_ = BatchDiagonals(batch.inputs(), batch.gradients(), plan_.multiprocessors()).numbers();
    add_workspace(extra, numbers_ * sizeof(float));
  }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    unsigned* counters = counters_.device();
    BatchSides sides = plan_.sides(batch, call.workspace<float>(0), counters + Phases<kPhases>::kCounters);
    sides.inputs.sum.matrices = matrices_of(arguments[3], sides.inputs);
    sides.gradients.sum.matrices = matrices_of(arguments[4], sides.gradients);
    BatchDiagonals diagonals(sides.inputs, sides.gradients, plan_.multiprocessors());
    if (diagonals.numbers() != numbers_)
      throw std::invalid_argument("other shapes than those that the kernel was created for");
    diagonals.place(call.workspace<float>(1));
    diagonals.set(arguments[5], arguments[6]);
    if (arguments[7].size() != 4)
      throw std::invalid_argument("expected four counts, got " + std::to_string(arguments[7].size()));
    const Launch launch{sides,
                        diagonals,
                        {{sides.vector_blocks, diagonals.square_blocks(), sides.sum_blocks(), sides.assembly_blocks(),
                          diagonals.blocks()},
                         true,
                         counters},
                        arguments[2].integers(),
                        separate_,
                        arguments[8].floats(),
                        arguments[7].floats(),
                        static_cast<float>(batch.samples()),
                        static_cast<float>(batch.counted_locations())};
    const auto kernel = precision_ == Precision::kFloat32 ? sherman_morrison_statistics<Precision::kFloat32>
                        : precision_ == Precision::kTf32  ? sherman_morrison_statistics<Precision::kTf32>
                                                          : sherman_morrison_statistics<Precision::kBfloat16>;
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
  }

 private:
  LayerGeometry geometry_;
  Precision precision_;
  bool separate_;
  BatchPlan plan_;
  int64_t numbers_;  // of the diagonals' workspace
  CounterRange counters_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(ShermanMorrisonStatistics, ms_kfac::ShermanMorrisonStatisticsKernel)
