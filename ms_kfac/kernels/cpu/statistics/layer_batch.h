// The inputs and output gradients of one layer's batch, in the form that second moments are computed from.
#pragma once

#include <functional>
#include <memory>

#include "../../interface/layer_geometry.h"
#include "columns.h"
#include "rows.h"

namespace ms_kfac {

// A MindSpore array of a floating-point type.
struct FloatArray {
  const void* data;
  FloatType type;
  std::vector<int64_t> shape;
};

// One side of a batch for one group: rows if there are any, otherwise images and the window that moves over them.
struct LayerSide {
  std::unique_ptr<Rows> rows;
  Images images{Values(nullptr, FloatType::kFloat32), 0, 0, 0, 0, 0, 0};
  Window window{};
  bool bias = false;

  int64_t features() const;
};

class LayerBatch {
 public:
  // Throws if the shapes of the arrays do not match the layer.
  LayerBatch(const LayerGeometry& geometry, const FloatArray& x, const FloatArray& dout);

  int64_t samples() const { return samples_; }
  int64_t groups() const { return geometry_.groups; }
  // Number of locations per sample.
  int64_t locations() const { return locations_; }
  // Number of locations per sample that count for G. 1 in the reduce setting.
  int64_t counted_locations() const { return geometry_.reduce ? 1 : locations_; }

  LayerSide inputs(int64_t group) const;
  LayerSide gradients(int64_t group) const;

  // Calls task(group, workers) for every group. Many groups run in parallel on one thread each. Few groups run one
  // after the other on all threads.
  void for_groups(const std::function<void(int64_t, int64_t)>& task) const;

 private:
  LayerSide stacked(const FloatArray& array, float scale, float mean) const;
  Images images(const FloatArray& array, float scale, int64_t group) const;

  LayerGeometry geometry_;
  FloatArray x_, dout_;
  int64_t samples_, locations_ = 1;
};

// Adds one side's sum of outer products to a symmetric (features, features) matrix, on at most `workers` threads.
void add_side_moment(const LayerSide& side, float* matrix, int64_t workers);

}  // namespace ms_kfac
