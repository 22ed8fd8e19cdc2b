// Inner products of the gradients and updates of one layer.
#pragma once

#include "../../interface/layer_gradients.h"
#include "../linalg/inner_product.h"

namespace ms_kfac {

struct Products {
  double weight = 0, bias = 0;

  // Adds the products of rows [first, last) of one group.
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
