// U = scale G^-1 dW A^-1 for many layers at once, with dW's bias column apart from it.
#pragma once

#include <vector>

#include "../interface/layer_gradients.h"

namespace ms_kfac {

// One of the blocks on the diagonal of a matrix; a full matrix is a single one. Groups follow one another.
struct DiagonalBlock {
  const float* values;
  int64_t size;
};

struct KroneckerLayer : LayerGradients {
  std::vector<DiagonalBlock> left;   // G^-1, of `rows` rows in all
  std::vector<DiagonalBlock> right;  // A^-1, of `columns` rows in all and one more with a bias
  const float* scale;                // one a group; null for 1
};

void precondition(const std::vector<KroneckerLayer>& layers);

}  // namespace ms_kfac
