// What goes into and comes out of the preconditioning of one layer, whatever its Fisher block.
#pragma once

#include <cstdint>

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

}  // namespace ms_kfac
