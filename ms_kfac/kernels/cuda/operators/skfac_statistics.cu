// SKFAC: stages the rows of one batch, or the sum of their outer products, if the gate is open, in one launch. A second
// launch records the pass.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_rows, G_rows, record (5 + 4: the numbers of rows of A and G and the
// ranks of both) (float32, written in place), ranks (2 floats). Output: an unused float32 scalar. A rank below the
// matrix's size means rows, the newest first; otherwise the matrix holds a sum. Ranks are in device memory, so blocks
// decide which of the two a side is. Formulas: ms_kfac/ops/statistics/skfac_statistics.py.

#include <cfloat>
#include <climits>
#include <cmath>

#include "../operator.h"
#include "../precision_attribute.h"
#include "../scheduling/counter_memory.h"
#include "../statistics/batch_sides.h"
#include "../statistics/capture_check.h"

namespace ms_kfac {
namespace {

enum Phase { kVectors, kSums, kRows, kPhases };

struct Launch {
  BatchSides sides;
  int64_t row_blocks;
  const float* ranks;
  Phases<kPhases> phases;
  StagedPass pass;
};

__device__ bool low(const LayerSide& side, float rank) { return rank < static_cast<float>(side.sum.features); }

// Of the statistics that a pass takes, those of sides that are kept as rows, or those of the others.
__device__ SidesTaken taken_as(const Launch& launch, const SidesTaken& taken, bool rows) {
  return {low(launch.sides.inputs, launch.ranks[0]) == rows ? taken.inputs : Taking::kNothing,
          low(launch.sides.gradients, launch.ranks[1]) == rows ? taken.gradients : Taking::kNothing};
}

// The number of elements of new rows, at most.
int64_t row_elements(const LayerSide& side) {
  const int64_t size = side.sum.features;
  return side.sum.groups * std::min(side.sum.depth, size) * size;
}

// Writes the batch's first rows to the top of the matrices. If the pass joins, older rows move down, and the last ones
// drop out; otherwise the rest is zeros. Each thread moves every count-th row of a column, from the last one up.
template <typename Number>
__device__ void push_rows(const LayerSide& side, const Number* numbers, bool joins, int64_t count, int64_t first,
                          int64_t step) {
  const Rows& rows = side.rows;
  const int64_t size = side.sum.features, of_group = count * size;
  for (int64_t index = first; index < side.sum.groups * of_group; index += step) {
    const int64_t group = index / of_group, row = index % of_group / size, feature = index % size;
    float* column = side.sum.matrices + group * size * size + feature;
    for (int64_t to = row + (size - 1 - row) / count * count; to > row; to -= count)
      column[to * size] = joins ? column[(to - count) * size] : 0.0f;
    const float value =
        feature < rows.width ? as_float(numbers[group * rows.group_stride + row * rows.width + feature]) : 1.0f;
    column[row * size] = rows.numbers.scale * value;
  }
}

__device__ void push_rows(const LayerSide& side, Taking taking, float rank, int64_t block, int64_t blocks) {
  if (taking == Taking::kNothing) return;
  const int64_t count = min(side.sum.depth, static_cast<int64_t>(rank));
  side.rows.numbers.visit([&](const auto* numbers) {
    push_rows(side, opaque_in_global(numbers), taking == Taking::kJoining, count, block * kThreads + threadIdx.x,
              blocks * kThreads);
  });
}

template <Precision kPrecision>
__global__ void __launch_bounds__(kThreads, 2) skfac_statistics(const __grid_constant__ Launch launch) {
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
    case kSums: {
      const SidesTaken sums = taken_as(launch, taken, false);
      if (sums.nothing()) break;
      phases.wait_for(kVectors);
      add_second_moments<kPrecision>(launch.sides, sums, claim.index, memory);
      break;
    }
    default:
      const SidesTaken rows = taken_as(launch, taken, true);
      if (rows.nothing()) break;
      phases.wait_for(kVectors);
      push_rows(launch.sides.inputs, rows.inputs, launch.ranks[0], claim.index, launch.row_blocks);
      push_rows(launch.sides.gradients, rows.gradients, launch.ranks[1], claim.index, launch.row_blocks);
  }
  phases.leave();
}

// A row sums or averages over the locations of a convolution.
LayerGeometry with_rows(LayerGeometry geometry) {
  geometry.reduce = geometry.reduce || geometry.convolution;
  return geometry;
}

class SKFACStatisticsKernel {
 public:
  SKFACStatisticsKernel(AotExtra& extra, const Arguments& shapes)
      : geometry_(with_rows(read_geometry(extra))),
        precision_(precision_of(extra)),
        separate_(extra.GetAttrBool("separate")),
        averages_(extra.GetAttrBool("averages")),
        plan_(LayerBatch(geometry_, shapes[0], shapes[1]), extra),
        counters_(plan_.counters() + Phases<kPhases>::kCounters),
        check_(geometry_, shapes, extra) {}

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const LayerBatch batch(geometry_, arguments[0], arguments[1]);
    unsigned* counters = counters_.device();
    BatchSides sides = plan_.sides(batch, call.workspace<float>(0), counters + Phases<kPhases>::kCounters);
    sides.inputs.sum.matrices = matrices_of(arguments[3], sides.inputs);
    sides.gradients.sum.matrices = matrices_of(arguments[4], sides.gradients);
    scale(batch, sides);
    if (arguments[6].size() != 2) throw std::invalid_argument("there must be two ranks");
    const float* ranks = arguments[6].floats();
    const int of_A = codes_of(kInputs, separate_), of_G = codes_of(kGradients, separate_);
    // The last two weights become the ranks, whatever they were.
    const StagedPass pass(
        arguments[2], arguments[5],
        {{static_cast<float>(sides.inputs.sum.depth), of_A, nullptr, ranks, sides.inputs.sum.features},
         {static_cast<float>(sides.gradients.sum.depth), of_G, nullptr, ranks + 1, sides.gradients.sum.features},
         {FLT_MAX, of_A, nullptr, ranks, INT_MAX},
         {FLT_MAX, of_G, nullptr, ranks + 1, INT_MAX}});
    const int64_t elements = std::max(row_elements(sides.inputs), row_elements(sides.gradients));
    const int64_t row_blocks = std::min<int64_t>((elements + kThreads - 1) / kThreads, 4 * plan_.multiprocessors());
    const Launch launch{sides,
                        row_blocks,
                        ranks,
                        {{sides.vector_blocks, sides.sum_blocks(), row_blocks}, sides.ordered(), counters},
                        pass};
    const auto kernel = with_precision(precision_, [](auto of) { return skfac_statistics<decltype(of)::value>; });
    ms_kfac::launch(kernel, launch.phases.total(), kThreads, call.stream, launch);
    check_.run(call, pass);
  }

 private:
  // Scales the rows, which are averages (A) or sums (G) over the locations.
  void scale(const LayerBatch& batch, BatchSides& sides) const {
    const auto locations = static_cast<float>(batch.locations());
    float& of_A = sides.inputs.rows.numbers.scale;
    if (!geometry_.convolution)
      of_A *= std::sqrt(static_cast<float>(batch.counted_locations()));
    else if (averages_)
      sides.gradients.rows.numbers.scale /= locations;
    else
      of_A *= locations;
  }

  LayerGeometry geometry_;
  Precision precision_;
  bool separate_, averages_;
  BatchPlan plan_;
  CounterRange counters_;
  CaptureCheck check_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(SKFACStatistics, ms_kfac::SKFACStatisticsKernel)
