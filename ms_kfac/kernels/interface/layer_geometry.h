// The geometry of a dense layer or a convolution, and its attributes of statistics operators.
#pragma once

#include <vector>

#include "aot_extra.h"
#include "window.h"

namespace ms_kfac {

// The codes of the gate. They match ms_kfac/ops/statistics/layer_statistics.py.
constexpr int kInputs = 1, kGradients = 2, kCorrectedEigenvalues = 4;

// All properties of a layer that do not depend on the batch.
struct LayerGeometry {
  // False for a dense layer.
  bool convolution = false;
  Window window{};
  // The padding makes the output size equal to the input size divided by the stride, rounded up.
  bool same_padding = false;
  int64_t groups = 1;
  bool bias = false;
  // The reduce setting: inputs are averaged and gradients summed over locations.
  bool reduce = false;
  // The loss is a mean over the batch.
  bool mean_reduction = false;
  float gradient_scale = 1.0f;
};

inline Pair pair_of(const std::vector<int64_t>& values, size_t first) {
  return {values.at(first), values.at(first + 1)};
}

// Reads the attributes that Python takes from LayerOperators.native_geometry() and from the options of the statistics.
inline LayerGeometry read_geometry(AotExtra& extra) {
  LayerGeometry geometry;
  geometry.convolution = extra.GetAttrBool("convolution");
  geometry.bias = extra.GetAttrBool("bias");
  geometry.reduce = extra.GetAttrBool("reduce");
  geometry.mean_reduction = extra.GetAttrBool("mean_reduction");
  geometry.gradient_scale = extra.GetAttrFloat("gradient_scale");
  if (!geometry.convolution) return geometry;
  geometry.groups = extra.GetAttrInt("groups");
  geometry.same_padding = extra.GetAttrBool("same_padding");
  const std::vector<int64_t> padding = extra.GetAttrIntVec("padding");
  geometry.window.kernel = pair_of(extra.GetAttrIntVec("kernel_size"), 0);
  geometry.window.stride = pair_of(extra.GetAttrIntVec("stride"), 0);
  geometry.window.dilation = pair_of(extra.GetAttrIntVec("dilation"), 0);
  geometry.window.before = {padding.at(0), padding.at(2)};
  geometry.window.after = {padding.at(1), padding.at(3)};
  return geometry;
}

}  // namespace ms_kfac
