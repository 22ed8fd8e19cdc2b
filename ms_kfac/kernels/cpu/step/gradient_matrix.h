// The gradient of one group as a matrix [dW db], and the update as [U_W U_b].
#pragma once

#include <algorithm>

#include "../../interface/layer_gradients.h"

namespace ms_kfac {

inline void join(const LayerGradients& layer, int64_t group, float* matrix) {
  for (int64_t row = group * layer.rows; row < (group + 1) * layer.rows; ++row) {
    matrix = std::copy_n(layer.weight_gradient + row * layer.columns, layer.columns, matrix);
    if (layer.bias_gradient) *matrix++ = layer.bias_gradient[row];
  }
}

inline void split(const LayerGradients& layer, int64_t group, const float* matrix) {
  for (int64_t row = group * layer.rows; row < (group + 1) * layer.rows; ++row) {
    std::copy_n(matrix, layer.columns, layer.weight_update + row * layer.columns);
    if (layer.bias_gradient) layer.bias_update[row] = matrix[layer.columns];
    matrix += layer.width();
  }
}

}  // namespace ms_kfac
