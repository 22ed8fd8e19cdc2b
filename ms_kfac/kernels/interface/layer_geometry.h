// What is the same for every batch of a dense layer or a convolution, and how operators of statistics are told of it.
#pragma once

#include <vector>

#include "aot_extra.h"
#include "window.h"

namespace ms_kfac {

// The gate's codes, of ms_kfac/ops/statistics.py.
constexpr int kInputs = 1, kGradients = 2, kBesideFactors = 4;

// What is the same for every batch of a layer.
struct LayerGeometry {
  // Without a kernel: a dense layer.
  bool convolution = false;
  Window window{};
  // The padding is chosen so that the output's size is the input's over the stride, rounded up.
  bool same_padding = false;
  int64_t groups = 1;
  bool bias = false;
  // The reduce setting: the mean of inputs and the sum of gradients over locations.
  bool reduce = false;
  // The loss is a mean over the batch.
  bool mean_reduction = false;
  float gradient_scale = 1.0f;
};

inline Pair pair_of(const std::vector<int64_t>& values, size_t first) {
  return {values.at(first), values.at(first + 1)};
}

// From the attributes that LayerOperators.native_geometry() of Python and the options of the statistics give.
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
