// SMKFAC: stages the diagonals of one batch's factors, and the factors themselves while `full` is set, if the gate is
// open. One launch does this, and a second one records the pass.
//
// Inputs: x, dout (floats), gate (int32 scalar), A, G, A_diagonal, G_diagonal, record (5 + 4) (float32, written in
// place), full (float32 scalar). Output: an unused float32 scalar. Formulas:
// ms_kfac/ops/statistics/sherman_morrison_statistics.py.

#include "../operator.h"
#include "../precision_attribute.h"
#include "../scheduling/counter_memory.h"
#include "../statistics/batch_sides.h"
#include "../statistics/capture_check.h"
#include "../statistics/diagonals.h"

namespace ms_kfac {
namespace {

// Diagonals come last, when all squares are complete.
enum Phase { kVectors, kSquares, kSums, kAssembly, kDiagonals, kPhases };

// Indices of the layer's weights.
enum Weight { kA, kG, kADiagonal, kGDiagonal };

struct Launch {
  BatchSides sides;
  BatchDiagonals diagonals;
  Phases<kPhases> phases;
  StagedPass pass;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) sherman_morrison_statistics(const __grid_constant__ Launch launch) {
  __shared__ SideMemory memory;
  const SidesTaken diagonals = launch.pass.sides(kADiagonal, kGDiagonal);
  if (diagonals.nothing()) return;
  const SidesTaken sums = launch.pass.sides(kA, kG);
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kVectors:
      sum_vectors(launch.sides, diagonals, claim.index);
      phases.finish(kVectors);
      break;
    case kSquares:
      phases.wait_for(kVectors);
      sum_squares(launch.diagonals, diagonals, claim.index);
      phases.finish(kSquares);
      break;
    case kSums:
      if (sums.nothing()) break;
      phases.wait_for(kVectors);
      add_second_moments<kPrecision>(launch.sides, sums, claim.index, memory);
      phases.finish(kSums);
      break;
    case kAssembly:
      if (sums.nothing()) break;
      phases.wait_for(kSums);
      assemble_inputs(launch.sides, sums, claim.index, memory);
      break;
    default:
      phases.wait_for(kSquares);
      add_diagonals(launch.diagonals, diagonals, claim.index);
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
    check_ = std::make_unique<CaptureCheck>(geometry_, shapes, extra);
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
      throw std::invalid_argument("shapes must be those that the kernel was created with");
    diagonals.place(call.workspace<float>(1));
    diagonals.set(arguments[5], arguments[6]);
    const float of_A = static_cast<float>(batch.samples());
    const float of_G = of_A * static_cast<float>(batch.counted_locations());
    const int code_A = separate_ ? kInputs : kAnyCode, code_G = separate_ ? kGradients : kAnyCode;
    const float* full = arguments[8].floats();
    const StagedPass pass(
        arguments[2], arguments[7],
        {{of_A, code_A, full}, {of_G, code_G, full}, {of_A, code_A, nullptr}, {of_G, code_G, nullptr}});
    const Launch launch{sides,
                        diagonals,
                        {{sides.vector_blocks, diagonals.square_blocks(), sides.sum_blocks(), sides.assembly_blocks(),
                          diagonals.blocks()},
                         true,
                         counters},
                        pass};
    const auto kernel =
        with_precision(precision_, [](auto of) { return sherman_morrison_statistics<decltype(of)::value>; });
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
    check_->run(call, pass);
  }

 private:
  LayerGeometry geometry_;
  Precision precision_;
  bool separate_;
  BatchPlan plan_;
  int64_t numbers_;  // of the diagonals' workspace
  CounterRange counters_;
  std::unique_ptr<CaptureCheck> check_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(ShermanMorrisonStatistics, ms_kfac::ShermanMorrisonStatisticsKernel)
