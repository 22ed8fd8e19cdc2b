// Adds one batch to the diagonals of a layer's factors, and to the factors while they are wanted, when the gate is
// open.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_sum, G_sum, A_diagonal, G_diagonal, counts (4,) (float32, written in
// place), full (float32 scalar). Output: a float32 scalar that means nothing. Formulas:
// ms_kfac/ops/sherman_morrison_statistics.py.

#include "../diagonal_moments.h"
#include "layer_arguments.h"

namespace {

struct ShermanMorrisonStatisticsAttributes {
  explicit ShermanMorrisonStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)), separate(extra.GetAttrBool("separate")) {}

  ms_kfac::LayerGeometry geometry;
  bool separate;
};

float* diagonals_of(const ms_kfac::Array& array, int64_t groups, int64_t features) {
  if (array.size() != groups * features) throw std::invalid_argument("a diagonal does not fit its layer");
  return array.floats();
}

}  // namespace

MS_KFAC_OPERATOR(ShermanMorrisonStatistics) {
  int asked = arguments[2].integers()[0];
  if (asked <= 0) return;
  if (!attributes.separate) asked = ms_kfac::kInputs + ms_kfac::kGradients;
  const ms_kfac::LayerBatch batch(attributes.geometry, ms_kfac::float_array(arguments[0]),
                                  ms_kfac::float_array(arguments[1]));
  const ms_kfac::Array counts = arguments[7];
  if (counts.size() != 4) throw std::invalid_argument("expected four counts");
  const bool full = arguments[8].floats()[0] > 0;
  // `side` is 0 for inputs and 1 for output gradients, which is also their order among the arguments.
  const auto add = [&](int side, int64_t weight) {
    const auto of_group = [&](int64_t group) { return side == 0 ? batch.inputs(group) : batch.gradients(group); };
    const int64_t features = of_group(0).features();
    float* diagonals = diagonals_of(arguments[5 + side], batch.groups(), features);
    float* sums = full ? ms_kfac::matrices_of(arguments[3 + side], batch.groups(), features) : nullptr;
    batch.for_groups([&](int64_t group, int64_t workers) {
      const ms_kfac::LayerSide vectors = of_group(group);
      ms_kfac::add_side_diagonal(vectors, diagonals + group * features);
      if (full) ms_kfac::add_side_moment(vectors, sums + group * features * features, workers);
    });
    counts.floats()[2 + side] += static_cast<float>(weight);
    if (full) counts.floats()[side] += static_cast<float>(weight);
  };
  if (asked & ms_kfac::kInputs) add(0, batch.samples());
  if (asked & ms_kfac::kGradients) add(1, batch.samples() * batch.counted_locations());
}
