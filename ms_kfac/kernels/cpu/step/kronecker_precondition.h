// U = scale G^-1 dW A^-1 for many layers per call. The bias column of dW is a separate array.
#pragma once

#include <vector>

#include "../../interface/layer_gradients.h"

namespace ms_kfac {

// A block on the diagonal of a matrix. A full matrix is a single block. The matrices of all groups are contiguous.
struct DiagonalBlock {
  const float* values;
  int64_t size;
};

struct KroneckerLayer : LayerGradients {
  std::vector<DiagonalBlock> left;   // G^-1; the sizes add up to `rows`
  std::vector<DiagonalBlock> right;  // A^-1; the sizes add up to width()
  const float* scale;                // one per group; null for 1
};

void precondition(const std::vector<KroneckerLayer>& layers);

}  // namespace ms_kfac
