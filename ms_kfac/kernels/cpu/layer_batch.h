// A layer's input and output gradient of one batch, as what their second moments are sums over.
#pragma once

#include <functional>
#include <memory>

#include "../interface/layer_geometry.h"
#include "columns.h"
#include "rows.h"

namespace ms_kfac {

// One of MindSpore's arrays of a float type.
struct FloatArray {
  const void* data;
  FloatType type;
  std::vector<int64_t> shape;
};

// One side of a batch for one group: rows, or without those the columns that a window sees of images.
struct LayerSide {
  std::unique_ptr<Rows> rows;
  Images images{Values(nullptr, FloatType::kFloat32), 0, 0, 0, 0, 0, 0};
  Window window{};
  bool bias = false;

  int64_t features() const;
};

class LayerBatch {
 public:
  // Refuses arrays whose shapes are not those of the layer.
  LayerBatch(const LayerGeometry& geometry, const FloatArray& x, const FloatArray& dout);

  int64_t samples() const { return samples_; }
  int64_t groups() const { return geometry_.groups; }
  // Locations a sample that count for G: 1 in the reduce setting.
  int64_t counted_locations() const { return geometry_.reduce ? 1 : locations_; }

  LayerSide inputs(int64_t group) const;
  LayerSide gradients(int64_t group) const;

  // Calls task(group, workers) for every group: many groups side by side, few one after the other on all threads.
  void for_groups(const std::function<void(int64_t, int64_t)>& task) const;

 private:
  LayerSide stacked(const FloatArray& array, float scale, float mean) const;
  Images images(const FloatArray& array, float scale, int64_t group) const;

  LayerGeometry geometry_;
  FloatArray x_, dout_;
  int64_t samples_, locations_ = 1;
};

// Adds the sum of outer products of one side to a symmetric (features, features) matrix, on at most `workers` threads.
void add_side_moment(const LayerSide& side, float* matrix, int64_t workers);

}  // namespace ms_kfac
