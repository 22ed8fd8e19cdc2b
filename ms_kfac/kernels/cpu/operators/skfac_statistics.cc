// SKFAC: stages the rows of one batch, or the sum of their outer products, if the gate is open.
//
// Inputs: x, dout (floats), gate (int32 scalar), A_rows, G_rows, record with the weights of A_rows and G_rows and the
// ranks of both (float32, written in place), ranks (2 floats). Output: a float32 scalar without meaning. A rank below
// the matrix's size means rows, the newest first; otherwise the matrix holds a sum. Formulas:
// ms_kfac/ops/statistics/skfac_statistics.py.

#include <algorithm>
#include <cmath>

#include "../statistics/row_buffer.h"
#include "../statistics/second_moments.h"
#include "staged_factors.h"

namespace {

struct SKFACStatisticsAttributes {
  explicit SKFACStatisticsAttributes(AotExtra& extra)
      : geometry(ms_kfac::read_geometry(extra)),
        separate(extra.GetAttrBool("separate")),
        averages(extra.GetAttrBool("averages")) {
    // A row sums or averages over the locations of a convolution.
    geometry.reduce = geometry.reduce || geometry.convolution;
  }

  ms_kfac::LayerGeometry geometry;
  bool separate;
  // Whether a convolution's rows are averages over locations, not sums.
  bool averages;

  // The factor of a batch's rows, which LayerBatch averages (A) or sums (G) over the locations.
  float factor(const ms_kfac::LayerBatch& batch, ms_kfac::Side side) const {
    const auto locations = static_cast<float>(batch.locations());
    if (!geometry.convolution)
      return side == ms_kfac::kInputSide ? std::sqrt(static_cast<float>(batch.counted_locations())) : 1.0f;
    if (averages) return side == ms_kfac::kInputSide ? 1.0f : 1.0f / locations;
    return side == ms_kfac::kInputSide ? locations : 1.0f;
  }
};

// The index of the rank of A. The rank of G is next.
constexpr int kRanks = 2;

void stage_rows(const ms_kfac::LayerBatch& batch, ms_kfac::Side side, float factor, float rank,
                const ms_kfac::Array& array, ms_kfac::StagedPass<4>& pass) {
  const int64_t groups = batch.groups(), size = ms_kfac::side_of(batch, side, 0).features();
  const bool low = rank < static_cast<float>(size), keeps = pass.joins(side);
  float* matrices = pass.take(side, ms_kfac::matrices_of(array, groups, size), groups * size * size);
  batch.for_groups([&](int64_t group, int64_t workers) {
    const ms_kfac::LayerSide of = ms_kfac::side_of(batch, side, group);
    const ms_kfac::ScaledRows rows(*of.rows, of.bias, factor);
    float* matrix = matrices + group * size * size;
    if (low)
      ms_kfac::push_rows(rows, std::min(rows.count(), static_cast<int64_t>(rank)), matrix, keeps);
    else
      ms_kfac::add_row_moment(rows, false, matrix, workers);
  });
  const float staged = pass.staged(side);
  const auto brought = static_cast<float>(ms_kfac::side_of(batch, side, 0).rows->count());
  pass.weigh(side, low ? std::min(staged + brought, rank) - staged : brought);
  pass.weigh(kRanks + side, rank - pass.staged(kRanks + side));
}

}  // namespace

MS_KFAC_BACKWARD_OPERATOR(SKFACStatistics) {
  int asked = arguments[2].integers()[0];
  if (asked <= 0) return;
  if (!attributes.separate) asked = ms_kfac::kInputs + ms_kfac::kGradients;
  const ms_kfac::FloatArray x = ms_kfac::float_array(arguments[0]), dout = ms_kfac::float_array(arguments[1]);
  const ms_kfac::LayerBatch batch(attributes.geometry, x, dout);
  ms_kfac::StagedPass<4> pass(arguments[5], &attributes);
  const float* ranks = arguments[6].floats();
  for (const ms_kfac::Side side : {ms_kfac::kInputSide, ms_kfac::kGradientSide})
    if (asked & (side == ms_kfac::kInputSide ? ms_kfac::kInputs : ms_kfac::kGradients))
      stage_rows(batch, side, attributes.factor(batch, side), ranks[side], arguments[3 + side], pass);
  pass.record(ms_kfac::capture_check(attributes.geometry, x, dout));
}
