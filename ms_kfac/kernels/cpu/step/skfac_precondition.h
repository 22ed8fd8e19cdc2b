// SKFAC: U = G^-1 [dW db] A^-1 for many layers per call, each inverse dense or as the rows of Woodbury's identity.
#pragma once

#include <vector>

#include "../../interface/layer_gradients.h"

namespace ms_kfac {

// The inverse of a factor of `size` rows, per group.
struct Solver {
  const float* matrices;  // (groups, size, size): Z in the first `rank` rows if rank < size, else the inverse
  const float* damping;   // (groups,); D of (I - Z' Z) / D
  int size;
  int rank;  // 0 before the first refresh: then Z has no rows

  bool low() const { return rank < size; }
};

struct SKFACLayer : LayerGradients {
  Solver A, G;
};

void precondition(const std::vector<SKFACLayer>& layers);

}  // namespace ms_kfac
