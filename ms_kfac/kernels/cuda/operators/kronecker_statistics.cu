// Stages the Kronecker statistics of one batch for a dense layer or a convolution, if the gate is open, in one launch.
// A second launch records the pass.
//
// Inputs: x, dout (floats), gate (int32 scalar), A, G, record (5 + 2) (float32, written in place). Output: an unused
// float32 scalar. Formulas: ms_kfac/ops/statistics/kronecker_statistics.py.

#include "../operator.h"
#include "../precision_attribute.h"
#include "../scheduling/counter_memory.h"
#include "../statistics/batch_sides.h"
#include "../statistics/capture_check.h"

namespace ms_kfac {
namespace {

enum Phase { kVectors, kSums, kAssembly, kPhases };

struct Launch {
  BatchSides sides;
  Phases<kPhases> phases;
  StagedPass pass;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) kronecker_statistics(const __grid_constant__ Launch launch) {
  __shared__ SideMemory memory;
  const SidesTaken taken = launch.pass.sides(0, 1);
  if (taken.nothing()) return;
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kVectors:
      sum_vectors(launch.sides, taken, claim.index);
      phases.finish(kVectors);
      break;
    case kSums:
      phases.wait_for(kVectors);
      add_second_moments<kPrecision>(launch.sides, taken, claim.index, memory);
      phases.finish(kSums);
      break;
    default:
      phases.wait_for(kSums);
      assemble_inputs(launch.sides, taken, claim.index, memory);
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
        counters_(plan_.counters() + Phases<kPhases>::kCounters),
        check_(geometry_, shapes, extra) {}

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    const float samples = static_cast<float>(batch.samples());
    const float locations = static_cast<float>(batch.counted_locations());
    const StagedPass pass(arguments[2], arguments[5],
                          {{samples, codes_of(kInputs, separate_), nullptr},
                           {samples * locations, codes_of(kGradients, separate_), nullptr}});
    unsigned* counters = counters_.device();
    const BatchSides sides = plan_.sides(batch, call.workspace<float>(0), counters + Phases<kPhases>::kCounters);
    Launch launch{
        sides, {{sides.vector_blocks, sides.sum_blocks(), sides.assembly_blocks()}, sides.ordered(), counters}, pass};
    launch.sides.inputs.sum.matrices = matrices_of(arguments[3], launch.sides.inputs);
    launch.sides.gradients.sum.matrices = matrices_of(arguments[4], launch.sides.gradients);
    const auto kernel = with_precision(precision_, [](auto of) { return kronecker_statistics<decltype(of)::value>; });
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
    check_.run(call, pass);
  }

 private:
  LayerGeometry geometry_;
  Precision precision_;
  bool separate_;
  BatchPlan plan_;
  CounterRange counters_;
  CaptureCheck check_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(KroneckerStatistics, ms_kfac::KroneckerStatisticsKernel)
