// Adds one batch to the Kronecker statistics of a dense layer or a convolution, when the gate is open.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_sum, A_count, G_sum, G_count (float32, written in place). Output: a
// float32 scalar that means nothing. Formulas: ms_kfac/ops/kronecker_statistics.py.

#include "layer_arguments.h"

namespace {

struct KroneckerStatisticsAttributes {
  explicit KroneckerStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)), separate(extra.GetAttrBool("separate")) {}

  ms_kfac::LayerGeometry geometry;
  bool separate;
};

}  // namespace

MS_KFAC_OPERATOR(KroneckerStatistics) {
  int asked = arguments[2].integers()[0] % ms_kfac::kBesideFactors;
  if (asked <= 0) return;
  if (!attributes.separate) asked = ms_kfac::kInputs + ms_kfac::kGradients;
  const ms_kfac::LayerBatch batch(attributes.geometry, ms_kfac::float_array(arguments[0]),
                                  ms_kfac::float_array(arguments[1]));
  const auto samples = static_cast<float>(batch.samples());
  if (asked & ms_kfac::kInputs) {
    const int64_t features = batch.inputs(0).features();
    float* sums = ms_kfac::matrices_of(arguments[3], batch.groups(), features);
    batch.for_groups([&](int64_t group, int64_t workers) {
      ms_kfac::add_side_moment(batch.inputs(group), sums + group * features * features, workers);
    });
    arguments[4].floats()[0] += samples;
  }
  if (asked & ms_kfac::kGradients) {
    const int64_t features = batch.gradients(0).features();
    float* sums = ms_kfac::matrices_of(arguments[5], batch.groups(), features);
    batch.for_groups([&](int64_t group, int64_t workers) {
      ms_kfac::add_side_moment(batch.gradients(group), sums + group * features * features, workers);
    });
    arguments[6].floats()[0] += samples * static_cast<float>(batch.counted_locations());
  }
}
