// Adds one batch to the trace-restricted statistics of a dense layer or a convolution, when the gate is open.
//
// Inputs: x, dout (floats), gate (int32 scalar), Phi_sum, Psi_sum, the traces, count (float32, written in place).
// Output: a float32 scalar that means nothing. With the attribute `roots` what enters are roots of the batch's block.
// Formulas: ms_kfac/ops/trace_restricted_statistics.py.

#include <cmath>

#include "../trace_restricted_moments.h"
#include "layer_arguments.h"

namespace {

struct TraceRestrictedStatisticsAttributes {
  explicit TraceRestrictedStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)), roots(extra.GetAttrBool("roots")) {
    if (!roots) return;
    floor = extra.GetAttrFloat("floor");
    smallest_trace = extra.GetAttrFloat("smallest_trace");
    homogeneous = extra.GetAttrBool("homogeneous");
  }

  ms_kfac::LayerGeometry geometry;
  bool roots;
  float floor = 0, smallest_trace = 0;
  bool homogeneous = false;
};

void add_scaled(const std::vector<float>& values, float factor, float* sums) {
  for (size_t i = 0; i < values.size(); ++i) sums[i] += factor * values[i];
}

}  // namespace

MS_KFAC_OPERATOR(TraceRestrictedStatistics) {
  if (arguments[2].integers()[0] <= 0) return;
  const ms_kfac::LayerBatch batch(attributes.geometry, ms_kfac::float_array(arguments[0]),
                                  ms_kfac::float_array(arguments[1]));
  const int64_t groups = batch.groups(), d = batch.inputs(0).features(), e = batch.gradients(0).features();
  float* Phi = ms_kfac::matrices_of(arguments[3], groups, d);
  float* Psi = ms_kfac::matrices_of(arguments[4], groups, e);
  float* traces = arguments[5].floats();
  if (arguments[5].size() != (attributes.roots ? 2 : 1) * groups)
    throw std::invalid_argument("the traces have " + std::to_string(arguments[5].size()) + " numbers");
  const auto samples = static_cast<float>(batch.samples());
  batch.for_groups([&](int64_t group, int64_t workers) {
    const ms_kfac::LayerSide inputs = batch.inputs(group), gradients = batch.gradients(group);
    if (!attributes.roots) {
      traces[group] += static_cast<float>(
          ms_kfac::add_trace_restricted(inputs, gradients, Phi + group * d * d, Psi + group * e * e, workers));
      return;
    }
    std::vector<float> batch_Phi(d * d), batch_Psi(e * e);
    const auto delta = static_cast<float>(
        ms_kfac::add_trace_restricted(inputs, gradients, batch_Phi.data(), batch_Psi.data(), workers) / samples);
    const float floored = std::fmax(delta, attributes.floor), root = std::sqrt(floored);
    const float factor = root / std::fmax(delta, attributes.smallest_trace);
    add_scaled(batch_Phi, factor, Phi + group * d * d);
    add_scaled(batch_Psi, factor, Psi + group * e * e);
    traces[group] += samples * delta;
    traces[groups + group] += samples * (attributes.homogeneous ? root : floored);
  });
  arguments[6].floats()[0] += samples;
}
