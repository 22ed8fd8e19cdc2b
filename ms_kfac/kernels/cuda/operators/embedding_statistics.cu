// Stages one batch of an embedding's factors if the gate is open: the diagonal of A, and G. One launch.
//
// Inputs: ids (int32), dout (floats), gate (int32 scalar), A (V), G (d, d), record (5 + 2) (float32, written in place).
// Output: an unused float32 scalar. Formulas: ms_kfac/ops/statistics/embedding_statistics.py.

#include "../operator.h"
#include "../precision_attribute.h"
#include "../scheduling/counter_memory.h"
#include "../statistics/batch_sides.h"
#include "../statistics/id_counts.h"

namespace ms_kfac {
namespace {

// kPrepare sums the gradients over locations in the reduce setting, and sets the counts to zero.
enum Phase { kPrepare, kCounts, kSums, kWrite, kPhases };

struct Launch {
  IdCounts ids;
  BatchSides sides;
  float* A;
  Phases<kPhases> phases;
  StagedPass pass;
};

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) embedding_statistics(const __grid_constant__ Launch launch) {
  __shared__ SideMemory memory;
  const SidesTaken taken = launch.pass.sides(0, 1);
  if (taken.nothing()) return;
  const Phases<kPhases>& phases = launch.phases;
  const Claim claim = phases.claim();
  switch (claim.phase) {
    case kPrepare:
      if (claim.index < launch.sides.vector_blocks)
        sum_vectors(launch.sides, taken, claim.index);
      else
        clear_counts(launch.ids, claim.index - launch.sides.vector_blocks);
      phases.finish(kPrepare);
      break;
    case kCounts:
      phases.wait_for(kPrepare);
      count_ids(launch.ids, taken.inputs != Taking::kNothing, claim.index);
      phases.finish(kCounts);
      break;
    case kSums:
      phases.wait_for(kPrepare);
      add_second_moments<kPrecision>(launch.sides, taken, claim.index, memory);
      break;
    default:
      phases.wait_for(kCounts);
      write_counts(launch.ids, taken.inputs, launch.A, claim.index);
  }
  if (phases.leave()) record_check(launch.pass, launch.ids.partials, 1, launch.ids.count_blocks);
}

// The one-hot inputs, of which only the shape exists.
class OneHot {
 public:
  OneHot(const Array& ids, int64_t vocabulary) : shape_(ids.shape, ids.shape + ids.axes) {
    shape_.push_back(vocabulary);
  }
  Array array() const { return {nullptr, static_cast<int>(shape_.size()), shape_.data(), "float32"}; }

 private:
  std::vector<int64_t> shape_;
};

class EmbeddingStatisticsKernel {
 public:
  EmbeddingStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(read_geometry(extra)),
        precision_(precision_of(extra)),
        separate_(extra.GetAttrBool("separate")),
        vocabulary_(extra.GetAttrInt("vocabulary")),
        multiprocessors_(multiprocessors()),
        plan_(*this, shapes),
        counters_(Phases<kPhases>::kCounters + plan_.sides.gradients.sum.tiles()) {
    add_workspace(extra, plan_.numbers() * sizeof(float));
    add_workspace(extra, vocabulary_ * sizeof(unsigned long long));
    add_workspace(extra, plan_.ids.partial_sums() * sizeof(double));
  }
  ~EmbeddingStatisticsKernel() { PassKernels::forget(this); }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    Plan plan(*this, arguments);
    if (plan.numbers() != plan_.numbers() || plan.sides.gradients.sum.depth != plan_.sides.gradients.sum.depth ||
        plan.ids.partial_sums() != plan_.ids.partial_sums())
      throw std::invalid_argument("shapes must be those that the kernel was created with");
    if (arguments[3].size() != vocabulary_)
      throw std::invalid_argument("A has " + std::to_string(arguments[3].size()) + " numbers, expected " +
                                  std::to_string(vocabulary_));
    unsigned* counters = counters_.device();
    plan.place(call, counters + Phases<kPhases>::kCounters);
    plan.sides.gradients.sum.matrices = matrices_of(arguments[4], plan.sides.gradients);
    const float samples = static_cast<float>(plan.ids.samples);
    const StagedPass pass(
        arguments[2], arguments[5],
        {{samples, codes_of(kInputs, separate_), nullptr},
         {static_cast<float>(plan.sides.gradients.sum.depth), codes_of(kGradients, separate_), nullptr}});
    const Launch launch{plan.ids,
                        plan.sides,
                        arguments[3].floats(),
                        {{plan.sides.vector_blocks + plan.ids.vocabulary_blocks, plan.ids.count_blocks,
                          plan.sides.sum_blocks(), plan.ids.vocabulary_blocks},
                         true,
                         counters},
                        pass};
    PassKernels::note(pass.record, this);
    const auto kernel = with_precision(precision_, [](auto of) { return embedding_statistics<decltype(of)::value>; });
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
  }

 private:
  // A batch, and how its work is split.
  struct Plan {
    Plan(const EmbeddingStatisticsKernel& kernel, const Arguments& arguments) {
      const OneHot inputs(arguments[0], kernel.vocabulary_);
      const LayerBatch batch(kernel.geometry_, inputs.array(), arguments[1]);
      const LayerBatch all(with_all_locations(kernel.geometry_), inputs.array(), arguments[1]);
      // tiles_across() divides by it.
      sides.inputs.sum.side = 64;
      sides.gradients = batch.gradients();
      split(sides.gradients.sum, kernel.multiprocessors_);
      ids = plan_id_counts(arguments[0].integers(), batch.samples(), batch.locations(),
                           static_cast<int>(kernel.vocabulary_), kernel.geometry_.reduce, all.gradients().rows,
                           kernel.multiprocessors_);
      sides.vector_blocks = vector_blocks(sides.inputs, sides.gradients, kernel.multiprocessors_);
    }
    // Floats of the workspace: summed gradients and parts of their sum.
    int64_t numbers() const { return sides.gradients.summed.count() + sides.gradients.sum.partial_numbers(); }
    void place(const Call& call, unsigned* arrivals) {
      LayerSide& gradients = sides.gradients;
      if (gradients.summed.count() > 0) {
        gradients.summed.vectors = call.workspace<float>(0);
        gradients.rows.numbers.data = gradients.summed.vectors;
      }
      gradients.sum.partials = call.workspace<float>(0) + gradients.summed.count();
      gradients.sum.arrivals = arrivals;
      ids.counts = call.workspace<unsigned long long>(1);
      ids.partials = call.workspace<double>(2);
    }

    // The inputs stay empty: their sum is the counts.
    BatchSides sides{};
    IdCounts ids;
  };

  LayerGeometry geometry_;
  Precision precision_;
  bool separate_;
  int64_t vocabulary_;
  int multiprocessors_;
  Plan plan_;
  CounterRange counters_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(EmbeddingStatistics, ms_kfac::EmbeddingStatisticsKernel)
