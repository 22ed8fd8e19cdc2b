// Adds one batch to the Kronecker statistics of a dense layer or a convolution, when the gate is open, in one launch.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_sum, A_count, G_sum, G_count (float32, written in place). Output: a
// float32 scalar that means nothing. Formulas: ms_kfac/ops/kronecker_statistics.py.

#include "../batch_sides.h"
#include "../counter_memory.h"
#include "../operator.h"

namespace ms_kfac {
namespace {

enum Phase { kVectors, kSums, kAssembly, kPhases };

struct Launch {
  BatchSides sides;
  Phases<kPhases> phases;
  const int32_t* gate;
  bool separate;
  float *A_count, *G_count;
  float samples, locations;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) kronecker_statistics(const __grid_constant__ Launch launch) {
  __shared__ SideMemory memory;
  const Asked asked = Asked::of(*launch.gate % kBesideFactors, launch.separate);
  if (asked.nothing()) return;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    if (asked.inputs) *launch.A_count += launch.samples;
    if (asked.gradients) *launch.G_count += launch.samples * launch.locations;
  }
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kVectors:
      sum_vectors(launch.sides, asked, claim.index);
      phases.finish(kVectors);
      break;
    case kSums:
      phases.wait_for(kVectors);
      add_second_moments<kPrecision>(launch.sides, asked, claim.index, memory);
      phases.finish(kSums);
      break;
    default:
      phases.wait_for(kSums);
      assemble_inputs(launch.sides, asked, claim.index, memory);
  }
  phases.leave();
}

class KroneckerStatisticsKernel {
 public:
  KroneckerStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(read_geometry(extra)),
        precision_(precision_of(extra)),
        separate_(extra.GetAttrBool("separate")),
        plan_(LayerBatch(geometry_, shapes[0], shapes[1]), extra, patch_form_of(extra)),
        counters_(plan_.counters() + Phases<kPhases>::kCounters) {}

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    unsigned* counters = counters_.device();
    const BatchSides sides = plan_.sides(batch, call.workspace<float>(0), counters + Phases<kPhases>::kCounters);
    Launch launch{sides,
                  {{sides.vector_blocks, sides.sum_blocks(), sides.assembly_blocks()}, sides.ordered(), counters},
                  arguments[2].integers(),
                  separate_,
                  arguments[4].floats(),
                  arguments[6].floats(),
                  static_cast<float>(batch.samples()),
                  static_cast<float>(batch.counted_locations())};
    launch.sides.inputs.sum.matrices = matrices_of(arguments[3], launch.sides.inputs);
    launch.sides.gradients.sum.matrices = matrices_of(arguments[5], launch.sides.gradients);
    const auto kernel = precision_ == Precision::kFloat32 ? kronecker_statistics<Precision::kFloat32>
                        : precision_ == Precision::kTf32  ? kronecker_statistics<Precision::kTf32>
                                                          : kronecker_statistics<Precision::kBfloat16>;
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
  }

 private:
  LayerGeometry geometry_;
  Precision precision_;
  bool separate_;
  BatchPlan plan_;
  CounterRange counters_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(KroneckerStatistics, ms_kfac::KroneckerStatisticsKernel)
