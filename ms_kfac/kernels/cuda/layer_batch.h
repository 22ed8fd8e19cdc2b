// A layer's batch on the host: its sides by shapes and addresses, and how their work is shared out among blocks.
#pragma once

#include <string>

#include "../interface/arguments.h"
#include "../interface/layer_geometry.h"
#include "lag_products.h"
#include "layer_side.h"

namespace ms_kfac {

// The layer as it is when every location counts, in the reduce setting, too.
inline LayerGeometry with_all_locations(LayerGeometry geometry) {
  geometry.reduce = false;
  return geometry;
}

class LayerBatch {
 public:
  // Refuses arrays whose shapes are not those of the layer.
  LayerBatch(const LayerGeometry& geometry, const Array& x, const Array& dout);

  int64_t samples() const { return samples_; }
  int64_t groups() const { return geometry_.groups; }
  // Locations a sample.
  int64_t locations() const { return locations_; }
  // Those that count for G: 1 in the reduce setting.
  int64_t counted_locations() const { return geometry_.reduce ? 1 : locations_; }

  LayerSide inputs() const;
  LayerSide gradients() const;

 private:
  LayerSide side(const Array& array, const Window& window, bool bias, float scale, float factor) const;

  LayerGeometry geometry_;
  Array x_, dout_;
  int64_t samples_, locations_ = 1;
};

// Where the sides find their workspaces, in floats from the beginning, and how many they need.
struct SidePlan {
  int64_t vectors[2], partials[2], numbers;
  int64_t counters;
};

// Parts of a depth for a tile of so many multiply-adds, where a block's share is given.
int parts_of(double work, int64_t depth, double share);

// Sets the parts of both sides' sums so that all blocks of a GPU have as much to do, and places their workspaces.
// Inputs may have products by lags in the place of their sum.
SidePlan plan_sides(LayerSide& inputs, LayerSide& gradients, LagProducts& lags, int multiprocessors);

// Gives the sides their workspace and counters.
void place_sides(LayerSide& inputs, LayerSide& gradients, LagProducts& lags, const SidePlan& plan, float* workspace,
                 unsigned* counters);

// The matrices of all groups, checked to be as large as a side's sum.
float* matrices_of(const Array& array, const LayerSide& side);

}  // namespace ms_kfac
