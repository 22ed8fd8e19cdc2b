// Stages one batch of a normalization layer's unit-wise Fisher if the gate asks for factors.
//
// Inputs: x, dout (floats), gate (int32 scalar), squares (2, C), cross (C), record with one weight (float32, written in
// place). Output: a float32 scalar without meaning. Formulas: ms_kfac/ops/statistics/unit_wise_statistics.py.

#include "../../interface/layer_geometry.h"
#include "../statistics/unit_wise_moments.h"
#include "layer_arguments.h"
#include "staged_pass.h"

namespace {

struct UnitWiseStatisticsAttributes {
  explicit UnitWiseStatisticsAttributes(AotExtra& extra) : geometry(ms_kfac::read_normalization(extra)) {}

  ms_kfac::NormalizationGeometry geometry;
};

}  // namespace

MS_KFAC_BACKWARD_OPERATOR(UnitWiseStatistics) {
  if (arguments[2].integers()[0] % ms_kfac::kCorrectedEigenvalues <= 0) return;
  const ms_kfac::FloatArray x = ms_kfac::float_array(arguments[0]), dout = ms_kfac::float_array(arguments[1]);
  const int64_t channels = attributes.geometry.channels();
  if (arguments[3].size() != 2 * channels || arguments[4].size() != channels)
    throw std::invalid_argument("the sums do not fit their layer");
  ms_kfac::StagedPass<1> pass(arguments[5], &attributes);
  float* squares = pass.take(0, arguments[3].floats(), 2 * channels);
  float* cross = pass.take(0, arguments[4].floats(), channels);
  const ms_kfac::CaptureCheck check = ms_kfac::add_unit_wise_moments(attributes.geometry, x, dout, squares, cross);
  pass.weigh(0, static_cast<float>(x.shape.size() > 1 ? x.shape[0] : 1));
  pass.record(check);
}
