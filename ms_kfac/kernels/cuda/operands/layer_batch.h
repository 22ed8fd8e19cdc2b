// A layer's batch on the host: its two sides, and how their work is split among blocks.
#pragma once

#include <string>

#include "../../interface/arguments.h"
#include "../../interface/layer_geometry.h"
#include "lag_products.h"
#include "layer_side.h"

namespace ms_kfac {

// The geometry with all locations counted, also in the reduce setting.
inline LayerGeometry with_all_locations(LayerGeometry geometry) {
  geometry.reduce = false;
  return geometry;
}

class LayerBatch {
 public:
  // Throws std::invalid_argument for arrays whose shapes do not fit the layer.
  LayerBatch(const LayerGeometry& geometry, const Array& x, const Array& dout);

  int64_t samples() const { return samples_; }
  int64_t groups() const { return geometry_.groups; }
  // Locations per sample.
  int64_t locations() const { return locations_; }
  // Locations per sample that count for G: 1 in the reduce setting.
  int64_t counted_locations() const { return geometry_.reduce ? 1 : locations_; }

  LayerSide inputs() const;
  LayerSide gradients() const;

 private:
  LayerSide side(const Array& array, const Window& window, bool bias, float scale, float factor) const;

  LayerGeometry geometry_;
  Array x_, dout_;
  int64_t samples_, locations_ = 1;
};

// Offsets of the sides' workspaces in floats, and the total number of floats and counters.
struct SidePlan {
  int64_t vectors[2], partials[2], numbers;
  int64_t counters;
};

// The number of parts that a tile's depth is split into (split-K), for `work` multiply-adds and about `share` of them
// per block.
int parts_of(double work, int64_t depth, double share);

// Splits a sum that is computed alone into parts that occupy all multiprocessors.
void split(SymmetricSum& sum, int multiprocessors);

// Splits both sides' sums into parts such that all blocks do about the same work, and lays out their workspaces.
// Products by lags may replace the sum of the inputs.
SidePlan plan_sides(LayerSide& inputs, LayerSide& gradients, LagProducts& lags, int multiprocessors);

// Sets the workspace and counters of the sides.
void place_sides(LayerSide& inputs, LayerSide& gradients, LagProducts& lags, const SidePlan& plan, float* workspace,
                 unsigned* counters);

// The matrices of all groups. Throws std::invalid_argument unless they have the size of the side's sum.
float* matrices_of(const Array& array, const LayerSide& side);

}  // namespace ms_kfac
