// Adds one batch to EKFAC's statistics of a dense layer or a convolution, when the gate is open, in one launch: the
// factors, and the second moments of the samples' gradients in the present basis.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_sum, G_sum, counts (3,) (float32, written in place), Q_A, Q_G
// (float32, read), s_sum (float32, written in place). Output: a float32 scalar that means nothing. The attribute
// `precision` is of the factors' products; second moments are float32. Formulas: ms_kfac/ops/eigenbasis_statistics.py.

#include "../batch_sides.h"
#include "../counter_memory.h"
#include "../eigenbasis_stages.h"
#include "../operator.h"

namespace ms_kfac {
namespace {

// The factors come last: their blocks wait for nobody while the last ones of the moments are at work.
enum Phase { kVectors, kMoments, kSums, kPhases };

struct Launch {
  BatchSides sides;
  EigenbasisMoments moments;
  Phases<kPhases> phases;
  const int32_t* gate;
  bool separate;
  float* counts;
  float samples, locations;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 1) eigenbasis_statistics(const __grid_constant__ Launch launch) {
  __shared__ union {
    SideMemory sides;
    MomentMemory moments;
  } memory;
  const int gate = *launch.gate;
  if (gate <= 0) return;
  const Asked asked = Asked::of(gate % kBesideFactors, launch.separate);
  const bool moments = !launch.separate || gate != kInputs;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    if (asked.inputs) launch.counts[0] += launch.samples;
    if (asked.gradients) launch.counts[1] += launch.samples * launch.locations;
    if (moments) launch.counts[2] += launch.samples;
  }
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kVectors:
      sum_vectors(launch.sides, asked, claim.index);
      phases.finish(kVectors);
      break;
    case kMoments:
      if (moments) add_moments(launch.moments, claim.index, memory.moments);
      break;
    default:
      phases.wait_for(kVectors);
      add_second_moments<kPrecision>(launch.sides, asked, claim.index, memory.sides);
  }
  if (phases.leave()) launch.moments.rounds.reset();
}

LayerGeometry with_all_locations(LayerGeometry geometry) {
  geometry.reduce = false;
  return geometry;
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
  }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    EigenbasisMoments moments = moments_of(arguments);
    if (moments.numbers() != numbers_)
      throw std::invalid_argument("other shapes than those that the kernel was created for");
    unsigned* of_moments = counters_->device() + Phases<kPhases>::kCounters;
    moments.place(call.workspace<float>(1), of_moments);
    moments.set(arguments[6], arguments[7], arguments[8]);
    BatchSides sides = plan_.sides(batch, call.workspace<float>(0), of_moments + moments.counters());
    sides.inputs.sum.matrices = matrices_of(arguments[3], sides.inputs);
    sides.gradients.sum.matrices = matrices_of(arguments[4], sides.gradients);
    const Array counts = arguments[5];
    if (counts.size() != 3) throw std::invalid_argument("expected three counts, got " + std::to_string(counts.size()));
    const Launch launch{sides,
                        moments,
                        {{sides.vector_blocks, moments.rounds.total(), sides.sum_blocks()}, true, counters_->device()},
                        arguments[2].integers(),
                        separate_,
                        counts.floats(),
                        static_cast<float>(batch.samples()),
                        static_cast<float>(batch.counted_locations())};
    static_assert(sizeof(launch) <= 4000, "more than the parameters of a kernel");
    const auto kernel = precision_ == Precision::kFloat32 ? eigenbasis_statistics<Precision::kFloat32>
                        : precision_ == Precision::kTf32  ? eigenbasis_statistics<Precision::kTf32>
                                                          : eigenbasis_statistics<Precision::kBfloat16>;
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
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
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(EigenbasisStatistics, ms_kfac::EigenbasisStatisticsKernel)
