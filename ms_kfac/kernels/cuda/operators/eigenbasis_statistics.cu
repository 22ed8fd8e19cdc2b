// Stages the EKFAC statistics of one batch for a dense layer or a convolution, if the gate is open. One launch computes
// the factors and the second moments of the per-sample gradients in the current basis. A second launch records the
// pass.
//
// Inputs: x, dout (floats), gate (int32 scalar), A, G, record (5 + 3) (float32, written in place), Q_A, Q_G (float32,
// read only), s (float32, written in place). Output: an unused float32 scalar. The attribute `precision` applies to the
// factors' products; second moments are float32. Formulas: ms_kfac/ops/statistics/eigenbasis_statistics.py.

#include "../operator.h"
#include "../precision_attribute.h"
#include "../scheduling/counter_memory.h"
#include "../statistics/batch_sides.h"
#include "../statistics/capture_check.h"
#include "../statistics/eigenbasis_stages.h"

namespace ms_kfac {
namespace {

// The factors come last: their blocks do not wait for the moments, and keep the GPU busy while the last blocks of the
// moments run.
enum Phase { kVectors, kMoments, kSums, kPhases };

struct Launch {
  BatchSides sides;
  EigenbasisMoments moments;
  Phases<kPhases> phases;
  StagedPass pass;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 1) eigenbasis_statistics(const __grid_constant__ Launch launch) {
  __shared__ union {
    SideMemory sides;
    MomentMemory moments;
  } memory;
  const SidesTaken taken = launch.pass.sides(0, 1);
  const Taking moments = launch.pass.taking(2);
  if (taken.nothing() && moments == Taking::kNothing) return;
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kVectors:
      sum_vectors(launch.sides, taken, claim.index);
      phases.finish(kVectors);
      break;
    case kMoments:
      if (moments != Taking::kNothing)
        add_moments(launch.moments, moments == Taking::kJoining, claim.index, memory.moments);
      break;
    default:
      phases.wait_for(kVectors);
      add_second_moments<kPrecision>(launch.sides, taken, claim.index, memory.sides);
  }
  if (phases.leave()) launch.moments.rounds.reset();
}

class EigenbasisStatisticsKernel {
 public:
  EigenbasisStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(read_geometry(extra)),
        precision_(precision_of(extra)),
        separate_(extra.GetAttrBool("separate")),
        plan_(LayerBatch(geometry_, shapes[0], shapes[1]), extra) {
    const EigenbasisMoments moments = moments_of(shapes);
    numbers_ = moments.numbers();
    add_workspace(extra, numbers_ * sizeof(float));
    counters_ = std::make_unique<CounterRange>(Phases<kPhases>::kCounters +
                                               static_cast<int>(moments.counters() + plan_.counters()));
    check_ = std::make_unique<CaptureCheck>(geometry_, shapes, extra);
  }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    EigenbasisMoments moments = moments_of(arguments);
    if (moments.numbers() != numbers_)
      throw std::invalid_argument("shapes must be those that the kernel was created with");
    unsigned* of_moments = counters_->device() + Phases<kPhases>::kCounters;
    moments.place(call.workspace<float>(1), of_moments);
    moments.set(arguments[6], arguments[7], arguments[8]);
    BatchSides sides = plan_.sides(batch, call.workspace<float>(0), of_moments + moments.counters());
    sides.inputs.sum.matrices = matrices_of(arguments[3], sides.inputs);
    sides.gradients.sum.matrices = matrices_of(arguments[4], sides.gradients);
    const float samples = static_cast<float>(batch.samples());
    const float locations = static_cast<float>(batch.counted_locations());
    // Any open gate updates the second moments, except one for inputs alone.
    const StagedPass pass(arguments[2], arguments[5],
                          {{samples, codes_of(kInputs, separate_), nullptr},
                           {samples * locations, codes_of(kGradients, separate_), nullptr},
                           {samples, separate_ ? kGradients | kCorrectedEigenvalues : kAnyCode, nullptr}});
    const Launch launch{sides,
                        moments,
                        {{sides.vector_blocks, moments.rounds.total(), sides.sum_blocks()}, true, counters_->device()},
                        pass};
    static_assert(sizeof(launch) <= 4000, "more than the parameters of a kernel");
    const auto kernel = with_precision(precision_, [](auto of) { return eigenbasis_statistics<decltype(of)::value>; });
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
    check_->run(call, pass);
  }

 private:
  EigenbasisMoments moments_of(const Arguments& arguments) const {
    return {LayerBatch(with_all_locations(geometry_), arguments[0], arguments[1]), plan_.multiprocessors()};
  }

  LayerGeometry geometry_;
  Precision precision_;
  bool separate_;
  BatchPlan plan_;
  int64_t numbers_;  // of the moments' workspace
  std::unique_ptr<CounterRange> counters_;
  std::unique_ptr<CaptureCheck> check_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(EigenbasisStatistics, ms_kfac::EigenbasisStatisticsKernel)
