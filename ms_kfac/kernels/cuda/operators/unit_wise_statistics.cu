// Stages one batch of a normalization layer's unit-wise Fisher if the gate asks for factors, in one launch.
//
// Inputs: x, dout (floats), gate (int32 scalar), squares (2, C), cross (C), record (5 + 1) (float32, written in place).
// Output: an unused float32 scalar. Formulas: ms_kfac/ops/statistics/unit_wise_statistics.py.

#include "../operator.h"
#include "../scheduling/counter_memory.h"
#include "../scheduling/phases.h"
#include "../statistics/unit_wise_sums.h"

namespace ms_kfac {
namespace {

enum Phase { kParts, kAffines, kSampleGradients, kSquares, kPhases };

struct Launch {
  UnitWiseSums sums;
  float *squares, *cross;
  Phases<kPhases> phases;
  StagedPass pass;
};

__global__ void __launch_bounds__(kThreads) unit_wise_statistics(const __grid_constant__ Launch launch) {
  const Taking taking = launch.pass.taking(0);
  if (taking == Taking::kNothing) return;
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kParts:
      sum_parts(launch.sums.inputs, claim.index);
      break;
    case kAffines:
      phases.wait_for(kParts);
      finish_entries(launch.sums.inputs, claim.index);
      break;
    case kSampleGradients:
      phases.wait_for(kParts);
      phases.wait_for(kAffines);
      sum_gradients(launch.sums, claim.index);
      break;
    default:
      phases.wait_for(kSampleGradients);
      sum_squares(launch.sums, taking == Taking::kJoining, launch.squares, launch.cross, claim.index);
  }
  phases.finish(claim.phase);
  if (phases.leave()) record(launch.sums, launch.pass);
}

class UnitWiseStatisticsKernel {
 public:
  UnitWiseStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(read_normalization(extra)),
        multiprocessors_(multiprocessors()),
        counters_(Phases<kPhases>::kCounters),
        plan_(geometry_, shapes[0], shapes[1], multiprocessors_) {
    add_workspace(extra, plan_.inputs.numbers_of_sums() * sizeof(SharedSums));
    add_workspace(extra, plan_.inputs.entries * sizeof(Affine));
    add_workspace(extra, 2 * plan_.gradients() * sizeof(float));
    add_workspace(extra, plan_.partial_sums() * sizeof(double));
  }
  ~UnitWiseStatisticsKernel() { PassKernels::forget(this); }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    UnitWiseSums sums(geometry_, arguments[0], arguments[1], multiprocessors_);
    if (sums.gradients() != plan_.gradients() || sums.inputs.entries != plan_.inputs.entries ||
        sums.inputs.count != plan_.inputs.count)
      throw std::invalid_argument("shapes must be those that the kernel was created with");
    const int64_t channels = sums.inputs.channels;
    if (arguments[3].size() != 2 * channels || arguments[4].size() != channels)
      throw std::invalid_argument("the sums do not fit their layer");
    sums.inputs.sums = call.workspace<SharedSums>(0);
    sums.inputs.affines = call.workspace<Affine>(1);
    sums.gamma = call.workspace<float>(2);
    sums.beta = sums.gamma + sums.gradients();
    sums.partials = call.workspace<double>(3);
    const StagedPass pass(arguments[2], arguments[5],
                          {{static_cast<float>(sums.inputs.samples), kInputs | kGradients, nullptr}});
    const Launch launch{sums,
                        arguments[3].floats(),
                        arguments[4].floats(),
                        {{sums.inputs.blocks, sums.inputs.affine_blocks(), sums.gradient_blocks, sums.square_blocks},
                         true,
                         counters_.device()},
                        pass};
    PassKernels::note(pass.record, this);
    ms_kfac::launch(unit_wise_statistics, launch.phases.total(), kThreads, call.stream, launch);
  }

 private:
  NormalizationGeometry geometry_;
  int multiprocessors_;
  CounterRange counters_;
  UnitWiseSums plan_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(UnitWiseStatistics, ms_kfac::UnitWiseStatisticsKernel)
