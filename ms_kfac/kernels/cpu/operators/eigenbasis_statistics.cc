// Adds one batch to EKFAC's statistics of a dense layer or a convolution: the factors, and the second moments of the
// samples' gradients in the present basis, when the gate is open.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_sum, G_sum, counts (3,) (float32, written in place), Q_A, Q_G
// (float32, read), s_sum (float32, written in place). Output: a float32 scalar that means nothing. Formulas:
// ms_kfac/ops/eigenbasis_statistics.py.

#include "../eigenbasis_moments.h"
#include "layer_arguments.h"

namespace {

struct EigenbasisStatisticsAttributes {
  explicit EigenbasisStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)), separate(extra.GetAttrBool("separate")) {}

  ms_kfac::LayerGeometry geometry;
  bool separate;
};

// The gate's codes, of ms_kfac/ops/statistics.py. Without separate statistics any factor asked for means both; the
// moments come with G, and with whatever is beside the factors.
constexpr int kInputs = 1, kGradients = 2, kEverything = 3, kBesideFactors = 4;

}  // namespace

MS_KFAC_OPERATOR(EigenbasisStatistics) {
  const int gate = arguments[2].integers()[0];
  if (gate <= 0) return;
  int factors = gate % kBesideFactors;
  if (!attributes.separate && factors > 0) factors = kEverything;
  const ms_kfac::FloatArray x = ms_kfac::float_array(arguments[0]), dout = ms_kfac::float_array(arguments[1]);
  const ms_kfac::LayerBatch batch(attributes.geometry, x, dout);
  const ms_kfac::Array counts = arguments[5];
  if (counts.size() != 3) throw std::invalid_argument("expected three counts");
  const auto samples = static_cast<float>(batch.samples());
  // `side` is 0 for inputs and 1 for output gradients, which is also their order among the arguments.
  const auto add_factor = [&](int side, float weight) {
    const auto of_group = [&](int64_t group) { return side == 0 ? batch.inputs(group) : batch.gradients(group); };
    const int64_t features = of_group(0).features();
    float* matrices = ms_kfac::matrices_of(arguments[3 + side], batch.groups(), features);
    batch.for_groups([&](int64_t group, int64_t workers) {
      ms_kfac::add_side_moment(of_group(group), matrices + group * features * features, workers);
    });
    counts.floats()[side] += weight;
  };
  if (factors & kInputs) add_factor(0, samples);
  if (factors & kGradients) add_factor(1, samples * static_cast<float>(batch.counted_locations()));
  if (gate == kInputs && attributes.separate) return;
  // Second moments are of whole gradients: every location counts, whatever the factors make of them.
  ms_kfac::LayerGeometry geometry = attributes.geometry;
  geometry.reduce = false;
  const ms_kfac::LayerBatch whole(geometry, x, dout);
  const int64_t groups = whole.groups(), d = whole.inputs(0).features(), e = whole.gradients(0).features();
  const float* Q_A = ms_kfac::matrices_of(arguments[6], groups, d);
  const float* Q_G = ms_kfac::matrices_of(arguments[7], groups, e);
  if (arguments[8].size() != groups * e * d) throw std::invalid_argument("the second moments do not fit their layer");
  float* sums = arguments[8].floats();
  whole.for_groups([&](int64_t group, int64_t workers) {
    ms_kfac::add_eigenbasis_moments(whole.inputs(group), whole.gradients(group), whole.samples(), Q_A + group * d * d,
                                    Q_G + group * e * e, sums + group * e * d, workers);
  });
  counts.floats()[2] += samples;
}
