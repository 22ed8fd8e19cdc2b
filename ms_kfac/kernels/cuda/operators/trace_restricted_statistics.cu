// TKFAC: stages the trace-restricted statistics of one batch for a dense layer or a convolution, if the gate is open,
// in one launch. A second launch records the pass.
//
// Inputs: x, dout (floats), gate (int32 scalar), Phi, Psi, delta, record (5 + 1) (float32, written in place). Output:
// an unused float32 scalar. Formulas: ms_kfac/ops/statistics/trace_restricted_statistics.py.

#include "../operator.h"
#include "../precision_attribute.h"
#include "../scheduling/counter_memory.h"
#include "../statistics/batch_trace.h"
#include "../statistics/capture_check.h"

namespace ms_kfac {
namespace {

enum Phase { kVectors, kSquares, kNorms, kSums, kPhases };

struct Launch {
  BatchSides sides;
  BatchTrace trace;
  Phases<kPhases> phases;
  StagedPass pass;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) trace_restricted_statistics(const __grid_constant__ Launch launch) {
  __shared__ SideMemory memory;
  // Both matrices and the trace share one weight.
  const SidesTaken both = launch.pass.sides(0, 0);
  if (both.nothing()) return;
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kVectors:
      sum_vectors(launch.sides, both, claim.index);
      phases.finish(kVectors);
      break;
    case kSquares:
      sum_squares(launch.trace, claim.index);
      phases.finish(kSquares);
      break;
    case kNorms:
      phases.wait_for(kVectors);
      phases.wait_for(kSquares);
      add_norms(launch.trace, both.inputs == Taking::kJoining, claim.index);
      phases.finish(kNorms);
      break;
    default:
      phases.wait_for(kNorms);
      add_second_moments<kPrecision>(launch.sides, both, claim.index, memory);
  }
  phases.leave();
}

class TraceRestrictedStatisticsKernel {
 public:
  TraceRestrictedStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(read_geometry(extra)),
        precision_(precision_of(extra)),
        plan_(LayerBatch(geometry_, shapes[0], shapes[1]), extra),
        counters_(Phases<kPhases>::kCounters + geometry_.groups + plan_.counters()) {
    const LayerBatch batch(geometry_, shapes[0], shapes[1]);
    numbers_ = BatchTrace(batch.inputs(), batch.gradients(), plan_.multiprocessors()).numbers();
    add_workspace(extra, numbers_ * sizeof(float));
    check_ = std::make_unique<CaptureCheck>(geometry_, shapes, extra);
  }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    unsigned* of_groups = counters_.device() + Phases<kPhases>::kCounters;
    BatchSides sides = plan_.sides(batch, call.workspace<float>(0), of_groups + geometry_.groups);
    sides.inputs.sum.matrices = matrices_of(arguments[3], sides.inputs);
    sides.gradients.sum.matrices = matrices_of(arguments[4], sides.gradients);
    BatchTrace trace(sides.inputs, sides.gradients, plan_.multiprocessors());
    if (trace.numbers() != numbers_)
      throw std::invalid_argument("shapes must be those that the kernel was created with");
    trace.place(call.workspace<float>(1), of_groups);
    trace.weigh(sides);
    trace.traces = traces_of(arguments[5]);
    const StagedPass pass(arguments[2], arguments[6], {{static_cast<float>(batch.samples()), kAnyCode, nullptr}});
    const Launch launch{
        sides,
        trace,
        {{sides.vector_blocks, trace.square_blocks(), trace.blocks(), sides.sum_blocks()}, true, counters_.device()},
        pass};
    const auto kernel =
        with_precision(precision_, [](auto of) { return trace_restricted_statistics<decltype(of)::value>; });
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
    check_->run(call, pass);
  }

 private:
  float* traces_of(const Array& array) const {
    if (array.size() != geometry_.groups)
      throw std::invalid_argument("the traces have " + std::to_string(array.size()) + " numbers, expected " +
                                  std::to_string(geometry_.groups));
    return array.floats();
  }

  LayerGeometry geometry_;
  Precision precision_;
  BatchPlan plan_;
  int64_t numbers_;  // of the trace's workspace
  CounterRange counters_;
  std::unique_ptr<CaptureCheck> check_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(TraceRestrictedStatistics, ms_kfac::TraceRestrictedStatisticsKernel)
