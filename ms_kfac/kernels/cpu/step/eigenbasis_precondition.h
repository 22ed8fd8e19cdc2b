// EKFAC: U = Q_G [(Q_G^T dW Q_A) / (s + damping)] Q_A^T for many layers per call.
#pragma once

#include <vector>

#include "../../interface/layer_gradients.h"

namespace ms_kfac {

struct EigenbasisLayer : LayerGradients {
  const float* Q_A;      // (groups, width, width); width includes the bias
  const float* Q_G;      // (groups, rows, rows)
  const float* moments;  // sums of s, (groups, rows, width)
  float count;           // divides moments; 0 before the first ones: then s is S_G S_A^T
  const float* S_A;      // (groups, width)
  const float* S_G;      // (groups, rows)
  float damping;
};

void precondition(const std::vector<EigenbasisLayer>& layers);

}  // namespace ms_kfac
