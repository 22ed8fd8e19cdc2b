// What the operators of layer statistics have in common: a layer's attributes and its batch.
#pragma once

#include <string>

#include "../layer_batch.h"
#include "../operator.h"

namespace ms_kfac {

// The gate's codes, of ms_kfac/ops/statistics.py.
constexpr int kInputs = 1, kGradients = 2, kBesideFactors = 4;

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

inline FloatArray float_array(const Array& array) {
  return {array.data, float_type(array.type), std::vector<int64_t>(array.shape, array.shape + array.axes)};
}

// The float32 matrices of all groups, checked to be as large as a side's moments.
inline float* matrices_of(const Array& array, int64_t groups, int64_t features) {
  if (array.size() != groups * features * features)
    throw std::invalid_argument("a sum has " + std::to_string(array.size()) + " numbers, expected " +
                                std::to_string(groups) + " x " + std::to_string(features) + "^2");
  return array.floats();
}

}  // namespace ms_kfac
