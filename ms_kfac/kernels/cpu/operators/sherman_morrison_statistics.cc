// SMKFAC: stages one batch of the diagonals of a layer's factors if the gate is open. While `full` is positive, it
// stages the factors, too.
//
// Inputs: x, dout (floats), gate (int32 scalar), A, G, A_diagonal, G_diagonal, record with the weights of these four
// (float32, written in place), full (float32 scalar, read). Output: a float32 scalar without meaning. Formulas:
// ms_kfac/ops/statistics/sherman_morrison_statistics.py.

#include "../statistics/diagonal_moments.h"
#include "staged_factors.h"

namespace {

struct ShermanMorrisonStatisticsAttributes {
  explicit ShermanMorrisonStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)), separate(extra.GetAttrBool("separate")) {}

  ms_kfac::LayerGeometry geometry;
  bool separate;
};

// The index of A_diagonal's weight. The weight of G_diagonal is next.
constexpr int kDiagonals = 2;

void stage_diagonal(const ms_kfac::LayerBatch& batch, ms_kfac::Side side, const ms_kfac::Array& array,
                    ms_kfac::StagedPass<4>& pass) {
  const int64_t groups = batch.groups(), features = ms_kfac::side_of(batch, side, 0).features();
  if (array.size() != groups * features) throw std::invalid_argument("a diagonal does not fit its layer");
  float* diagonals = pass.take(kDiagonals + side, array.floats(), array.size());
  batch.for_groups([&](int64_t group, int64_t) {
    ms_kfac::add_side_diagonal(ms_kfac::side_of(batch, side, group), diagonals + group * features);
  });
  pass.weigh(kDiagonals + side, ms_kfac::weight_of(batch, side));
}

}  // namespace

MS_KFAC_BACKWARD_OPERATOR(ShermanMorrisonStatistics) {
  int asked = arguments[2].integers()[0];
  if (asked <= 0) return;
  if (!attributes.separate) asked = ms_kfac::kInputs + ms_kfac::kGradients;
  const ms_kfac::FloatArray x = ms_kfac::float_array(arguments[0]), dout = ms_kfac::float_array(arguments[1]);
  const ms_kfac::LayerBatch batch(attributes.geometry, x, dout);
  ms_kfac::StagedPass<4> pass(arguments[7], &attributes);
  const bool full = arguments[8].floats()[0] > 0;
  for (const ms_kfac::Side side : {ms_kfac::kInputSide, ms_kfac::kGradientSide}) {
    if (!(asked & (side == ms_kfac::kInputSide ? ms_kfac::kInputs : ms_kfac::kGradients))) continue;
    stage_diagonal(batch, side, arguments[5 + side], pass);
    if (full) ms_kfac::stage_factor(batch, side, arguments[3 + side], pass);
  }
  pass.record(ms_kfac::capture_check(attributes.geometry, x, dout));
}
