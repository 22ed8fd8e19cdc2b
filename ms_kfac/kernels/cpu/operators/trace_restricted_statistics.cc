// TKFAC: stages one batch of the trace-restricted statistics of a dense layer or a convolution if the gate is open.
//
// Inputs: x, dout (floats), gate (int32 scalar), Phi, Psi, delta (one per group), record with their single weight
// (float32, written in place). Output: a float32 scalar without meaning. Formulas:
// ms_kfac/ops/statistics/trace_restricted_statistics.py.

#include "../statistics/trace_restricted_moments.h"
#include "layer_arguments.h"
#include "staged_pass.h"

namespace {

struct TraceRestrictedStatisticsAttributes {
  explicit TraceRestrictedStatisticsAttributes(AotExtra& extra) : geometry(ms_kfac::read_geometry(extra)) {}

  ms_kfac::LayerGeometry geometry;
};

}  // namespace

MS_KFAC_BACKWARD_OPERATOR(TraceRestrictedStatistics) {
  if (arguments[2].integers()[0] <= 0) return;
  const ms_kfac::FloatArray x = ms_kfac::float_array(arguments[0]), dout = ms_kfac::float_array(arguments[1]);
  const ms_kfac::LayerBatch batch(attributes.geometry, x, dout);
  const int64_t groups = batch.groups(), d = batch.inputs(0).features(), e = batch.gradients(0).features();
  if (arguments[5].size() != groups)
    throw std::invalid_argument("delta has " + std::to_string(arguments[5].size()) + " numbers, expected " +
                                std::to_string(groups));
  ms_kfac::StagedPass<1> pass(arguments[6], &attributes);
  float* Phi = pass.take(0, ms_kfac::matrices_of(arguments[3], groups, d), groups * d * d);
  float* Psi = pass.take(0, ms_kfac::matrices_of(arguments[4], groups, e), groups * e * e);
  float* delta = pass.take(0, arguments[5].floats(), groups);
  batch.for_groups([&](int64_t group, int64_t workers) {
    delta[group] += static_cast<float>(ms_kfac::add_trace_restricted(
        batch.inputs(group), batch.gradients(group), Phi + group * d * d, Psi + group * e * e, workers));
  });
  pass.weigh(0, static_cast<float>(batch.samples()));
  pass.record(ms_kfac::capture_check(attributes.geometry, x, dout));
}
