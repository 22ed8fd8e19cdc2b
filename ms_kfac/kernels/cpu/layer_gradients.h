// What goes into and comes out of the preconditioning of one layer, whatever its Fisher block.
#pragma once

#include <cstdint>

#include "inner_product.h"

namespace ms_kfac {

struct LayerGradients {
  int64_t groups, rows, columns;  // of the weights as matrices; a bias counts as one more column
  const float* weight_gradient;   // (groups, rows, columns)
  const float* bias_gradient;     // (groups, rows); null without a bias
  float* weight_update;
  float* bias_update;
  float* weight_product;  // <dW, U> of the weights
  float* bias_product;    // and of the bias

  // Columns with the bias's.
  int64_t width() const { return columns + (bias_gradient ? 1 : 0); }
};

// Inner products of gradients and updates.
struct Products {
  double weight = 0, bias = 0;

  // Adds those of rows [first, last) of one group.
  void add_rows(const LayerGradients& layer, int64_t group, int64_t first, int64_t last) {
    const int64_t row = group * layer.rows + first, rows = last - first;
    weight += inner_product(layer.weight_gradient + row * layer.columns, layer.weight_update + row * layer.columns,
                            rows * layer.columns);
    if (layer.bias_gradient) bias += inner_product(layer.bias_gradient + row, layer.bias_update + row, rows);
  }
  void keep(const LayerGradients& layer) const {
    *layer.weight_product = static_cast<float>(weight);
    if (layer.bias_gradient) *layer.bias_product = static_cast<float>(bias);
  }
};

}  // namespace ms_kfac
