// The gradients and updates of one layer: input and output of preconditioning, for all kinds of Fisher blocks.
#pragma once

#include <cstdint>

namespace ms_kfac {

struct LayerGradients {
  int64_t groups, rows, columns;  // of the weight matrices; columns excludes the bias
  const float* weight_gradient;   // (groups, rows, columns)
  const float* bias_gradient;     // (groups, rows); null without a bias
  float* weight_update;
  float* bias_update;
  float* weight_product;  // <dW, U>
  float* bias_product;    // the same for the bias

  // Columns, including the one of the bias.
  int64_t width() const { return columns + (bias_gradient ? 1 : 0); }
};

}  // namespace ms_kfac
