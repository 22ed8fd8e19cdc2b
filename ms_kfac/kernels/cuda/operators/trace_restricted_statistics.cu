// Adds one batch to the trace-restricted statistics of a dense layer or a convolution, when the gate is open, in one
// launch.
//
// Inputs: x, dout (floats), gate (int32 scalar), Phi_sum, Psi_sum, the traces, count (float32, written in place).
// Output: a float32 scalar that means nothing. With the attribute `roots` what enters are roots of the batch's block.
// Formulas: ms_kfac/ops/trace_restricted_statistics.py.

#include "../batch_trace.h"
#include "../counter_memory.h"
#include "../operator.h"

namespace ms_kfac {
namespace {

enum Phase { kVectors, kSquares, kNorms, kSums, kPhases };

struct Launch {
  BatchSides sides;
  BatchTrace trace;
  Phases<kPhases> phases;
  const int32_t* gate;
  float* count;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) trace_restricted_statistics(const __grid_constant__ Launch launch) {
  __shared__ SideMemory memory;
  if (*launch.gate <= 0) return;
  if (blockIdx.x == 0 && threadIdx.x == 0) *launch.count += launch.trace.samples;
  const Asked both{true, true};
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
      add_norms(launch.trace, claim.index);
      phases.finish(kNorms);
      break;
    default:
      phases.wait_for(kNorms);
      add_second_moments<kPrecision>(launch.sides, both, claim.index, memory);
  }
  phases.leave();
}

TraceRule rule_of(AotExtra& extra) {
  if (!extra.GetAttrBool("roots")) return {};
  return {true, extra.GetAttrFloat("floor"), extra.GetAttrFloat("smallest_trace"), extra.GetAttrBool("homogeneous")};
}

class TraceRestrictedStatisticsKernel {
 public:
  TraceRestrictedStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(read_geometry(extra)),
        precision_(precision_of(extra)),
        rule_(rule_of(extra)),
        plan_(LayerBatch(geometry_, shapes[0], shapes[1]), extra),
        counters_(Phases<kPhases>::kCounters + geometry_.groups + plan_.counters()) {
    const LayerBatch batch(geometry_, shapes[0], shapes[1]);
    numbers_ = trace_of(batch, batch.inputs(), batch.gradients()).numbers();
    add_workspace(extra, numbers_ * sizeof(float));
  }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    unsigned* of_groups = counters_.device() + Phases<kPhases>::kCounters;
    BatchSides sides = plan_.sides(batch, call.workspace<float>(0), of_groups + geometry_.groups);
    sides.inputs.sum.matrices = matrices_of(arguments[3], sides.inputs);
    sides.gradients.sum.matrices = matrices_of(arguments[4], sides.gradients);
    BatchTrace trace = trace_of(batch, sides.inputs, sides.gradients);
    if (trace.numbers() != numbers_)
      throw std::invalid_argument("other shapes than those that the kernel was created for");
    trace.place(call.workspace<float>(1), of_groups);
    trace.weigh(sides);
    trace.traces = traces_of(arguments[5]);
    const Launch launch{
        sides,
        trace,
        {{sides.vector_blocks, trace.square_blocks(), trace.blocks(), sides.sum_blocks()}, true, counters_.device()},
        arguments[2].integers(),
        arguments[6].floats()};
    const auto kernel = precision_ == Precision::kFloat32 ? trace_restricted_statistics<Precision::kFloat32>
                        : precision_ == Precision::kTf32  ? trace_restricted_statistics<Precision::kTf32>
                                                          : trace_restricted_statistics<Precision::kBfloat16>;
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
  }

 private:
  BatchTrace trace_of(const LayerBatch& batch, const LayerSide& inputs, const LayerSide& gradients) const {
    return {inputs, gradients, rule_, batch.samples(), plan_.multiprocessors()};
  }
  float* traces_of(const Array& array) const {
    const int64_t expected = (rule_.roots ? 2 : 1) * geometry_.groups;
    if (array.size() != expected)
      throw std::invalid_argument("the traces have " + std::to_string(array.size()) + " numbers, expected " +
                                  std::to_string(expected));
    return array.floats();
  }

  LayerGeometry geometry_;
  Precision precision_;
  TraceRule rule_;
  BatchPlan plan_;
  int64_t numbers_;  // of the trace's workspace
  CounterRange counters_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(TraceRestrictedStatistics, ms_kfac::TraceRestrictedStatisticsKernel)
