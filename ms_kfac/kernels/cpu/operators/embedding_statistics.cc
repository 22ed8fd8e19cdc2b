// Stages one batch of an embedding's factors if the gate is open: the diagonal of A, and G.
//
// Inputs: ids (int32), dout (floats), gate (int32 scalar), A (V), G (d, d), record with the weights of both (float32,
// written in place). Output: a float32 scalar without meaning. Formulas:
// ms_kfac/ops/statistics/embedding_statistics.py.

#include "../statistics/id_counts.h"
#include "staged_factors.h"

namespace {

struct EmbeddingStatisticsAttributes {
  explicit EmbeddingStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)),
        separate(extra.GetAttrBool("separate")),
        vocabulary(extra.GetAttrInt("vocabulary")) {}

  // Of the dense layer with one-hot inputs that the embedding is.
  ms_kfac::LayerGeometry geometry;
  bool separate;
  int64_t vocabulary;
};

// The one-hot inputs, of which only the shape exists.
ms_kfac::FloatArray one_hot(const ms_kfac::Array& ids, int64_t vocabulary) {
  ms_kfac::FloatArray inputs{nullptr, ms_kfac::FloatType::kFloat32, {ids.shape, ids.shape + ids.axes}};
  inputs.shape.push_back(vocabulary);
  return inputs;
}

}  // namespace

MS_KFAC_BACKWARD_OPERATOR(EmbeddingStatistics) {
  int asked = arguments[2].integers()[0] % ms_kfac::kCorrectedEigenvalues;
  if (asked <= 0) return;
  if (!attributes.separate) asked = ms_kfac::kInputs + ms_kfac::kGradients;
  const ms_kfac::FloatArray dout = ms_kfac::float_array(arguments[1]);
  const ms_kfac::LayerBatch batch(attributes.geometry, one_hot(arguments[0], attributes.vocabulary), dout);
  const ms_kfac::Ids ids{arguments[0].integers(), batch.samples(), batch.locations(), attributes.vocabulary};
  ms_kfac::StagedPass<2> pass(arguments[5], &attributes);
  if (asked & ms_kfac::kInputs) {
    if (arguments[3].size() != ids.vocabulary)
      throw std::invalid_argument("A has " + std::to_string(arguments[3].size()) + " numbers, expected " +
                                  std::to_string(ids.vocabulary));
    ms_kfac::add_id_counts(ids, attributes.geometry.reduce,
                           pass.take(ms_kfac::kInputSide, arguments[3].floats(), ids.vocabulary));
    pass.weigh(ms_kfac::kInputSide, ms_kfac::weight_of(batch, ms_kfac::kInputSide));
  }
  if (asked & ms_kfac::kGradients) ms_kfac::stage_factor(batch, ms_kfac::kGradientSide, arguments[4], pass);
  pass.record(ms_kfac::capture_check(ids, dout));
}
