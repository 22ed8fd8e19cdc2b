// Stages one batch of EKFAC's statistics of a dense layer or a convolution if the gate is open. These are the factors
// and the second moments of the per-sample gradients in the current basis.
//
// Inputs: x, dout (floats), gate (int32 scalar), A, G, record with the weights of A, G and s (float32, written in
// place), Q_A, Q_G (float32, read), s (float32, written in place). Output: a float32 scalar without meaning. Formulas:
// ms_kfac/ops/statistics/eigenbasis_statistics.py.

#include "../statistics/eigenbasis_moments.h"
#include "staged_factors.h"

namespace {

struct EigenbasisStatisticsAttributes {
  explicit EigenbasisStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)), separate(extra.GetAttrBool("separate")) {}

  ms_kfac::LayerGeometry geometry;
  bool separate;
};

// The codes of the gate match ms_kfac/ops/statistics/layer_statistics.py. Without separate statistics, a request for
// one factor means both. The moments come with G and with any code beyond the factors.
constexpr int kEverything = ms_kfac::kInputs + ms_kfac::kGradients;
constexpr int kMoments = 2;

}  // namespace

MS_KFAC_BACKWARD_OPERATOR(EigenbasisStatistics) {
  const int gate = arguments[2].integers()[0];
  if (gate <= 0) return;
  int factors = gate % ms_kfac::kCorrectedEigenvalues;
  if (!attributes.separate && factors > 0) factors = kEverything;
  const ms_kfac::FloatArray x = ms_kfac::float_array(arguments[0]), dout = ms_kfac::float_array(arguments[1]);
  const ms_kfac::LayerBatch batch(attributes.geometry, x, dout);
  ms_kfac::StagedPass<3> pass(arguments[5], &attributes);
  if (factors & ms_kfac::kInputs) ms_kfac::stage_factor(batch, ms_kfac::kInputSide, arguments[3], pass);
  if (factors & ms_kfac::kGradients) ms_kfac::stage_factor(batch, ms_kfac::kGradientSide, arguments[4], pass);
  if (gate != ms_kfac::kInputs || !attributes.separate) {
    // Second moments need the full gradients: every location counts, also where the factors reduce over them.
    ms_kfac::LayerGeometry geometry = attributes.geometry;
    geometry.reduce = false;
    const ms_kfac::LayerBatch whole(geometry, x, dout);
    const int64_t groups = whole.groups(), d = whole.inputs(0).features(), e = whole.gradients(0).features();
    const float* Q_A = ms_kfac::matrices_of(arguments[6], groups, d);
    const float* Q_G = ms_kfac::matrices_of(arguments[7], groups, e);
    if (arguments[8].size() != groups * e * d) throw std::invalid_argument("the second moments do not fit their layer");
    float* moments = pass.take(kMoments, arguments[8].floats(), groups * e * d);
    whole.for_groups([&](int64_t group, int64_t workers) {
      ms_kfac::add_eigenbasis_moments(whole.inputs(group), whole.gradients(group), whole.samples(), Q_A + group * d * d,
                                      Q_G + group * e * e, moments + group * e * d, workers);
    });
    pass.weigh(kMoments, static_cast<float>(whole.samples()));
  }
  pass.record(ms_kfac::capture_check(attributes.geometry, x, dout));
}
