// The gradient of one group as a matrix [dW db], and the preconditioning of layers by transforms of that matrix.
#pragma once

#include <algorithm>
#include <vector>

#include "../../interface/layer_gradients.h"
#include "../linalg/blas.h"
#include "../threads/threads.h"
#include "../threads/uneven_tasks.h"
#include "gradient_products.h"

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

// [dW db] of one group, row-major, and a second matrix of its size.
struct JoinedGradient {
  int rows, width;
  float *matrix, *other;
};

// Calls transform(layer, group, gradient), which leaves the update in gradient.matrix, for each group of each layer.
// OpenBLAS's threads process the layers that cost more than the average per thread.
template <typename Layer, typename Cost, typename Transform>
void precondition_joined(const std::vector<Layer>& layers, const Cost& cost, const Transform& transform) {
  const auto precondition_layer = [&](const Layer& layer) {
    thread_local std::vector<float> scratch;
    const size_t size = static_cast<size_t>(layer.rows) * layer.width();
    if (scratch.size() < 2 * size) scratch.resize(2 * size);
    Products products;
    for (int64_t group = 0; group < layer.groups; ++group) {
      JoinedGradient gradient{static_cast<int>(layer.rows), static_cast<int>(layer.width()), scratch.data(),
                              scratch.data() + size};
      join(layer, group, gradient.matrix);
      transform(layer, group, gradient);
      split(layer, group, gradient.matrix);
      products.add_rows(layer, group, 0, layer.rows);
    }
    products.keep(layer);
  };
  std::vector<double> costs;
  for (const Layer& layer : layers) costs.push_back(cost(layer));
  const auto large = [&](int64_t index) {
    const blas::Threads guard(threads());
    precondition_layer(layers[index]);
  };
  run_uneven(costs, large, [&](int64_t index) { precondition_layer(layers[index]); });
}

}  // namespace ms_kfac
