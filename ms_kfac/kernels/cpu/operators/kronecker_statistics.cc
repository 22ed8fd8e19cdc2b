// Stages one batch of the Kronecker factors of a dense layer or a convolution if the gate is open.
//
// Inputs: x, dout (floats), gate (int32 scalar), A, G, record with the weights of both (float32, written in place).
// Output: a float32 scalar without meaning. Formulas: ms_kfac/ops/statistics/kronecker_statistics.py.

#include "staged_factors.h"

namespace {

struct KroneckerStatisticsAttributes {
  explicit KroneckerStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)), separate(extra.GetAttrBool("separate")) {}

  ms_kfac::LayerGeometry geometry;
  bool separate;
};

}  // namespace

MS_KFAC_BACKWARD_OPERATOR(KroneckerStatistics) {
  int asked = arguments[2].integers()[0] % ms_kfac::kCorrectedEigenvalues;
  if (asked <= 0) return;
  if (!attributes.separate) asked = ms_kfac::kInputs + ms_kfac::kGradients;
  const ms_kfac::FloatArray x = ms_kfac::float_array(arguments[0]), dout = ms_kfac::float_array(arguments[1]);
  const ms_kfac::LayerBatch batch(attributes.geometry, x, dout);
  ms_kfac::StagedPass<2> pass(arguments[5], &attributes);
  if (asked & ms_kfac::kInputs) ms_kfac::stage_factor(batch, ms_kfac::kInputSide, arguments[3], pass);
  if (asked & ms_kfac::kGradients) ms_kfac::stage_factor(batch, ms_kfac::kGradientSide, arguments[4], pass);
  pass.record(ms_kfac::capture_check(attributes.geometry, x, dout));
}
