// U = scale G^-1 dW A^-1 for many layers at once, with dW's bias column apart from it.
#pragma once

#include <cstdint>
#include <vector>

namespace ms_kfac {

// One of the blocks on the diagonal of a matrix; a full matrix is a single one. Groups follow one another.
struct DiagonalBlock {
  const float* values;
  int64_t size;
};

struct KroneckerLayer {
  int64_t groups, rows, columns;     // of the weights as matrices; a bias counts as one more column
  std::vector<DiagonalBlock> left;   // G^-1, of `rows` rows in all
  std::vector<DiagonalBlock> right;  // A^-1, of `columns` rows in all and one more with a bias
  const float* scale;                // one a group; null for 1
  const float* weight_gradient;      // (groups, rows, columns)
  const float* bias_gradient;        // (groups, rows); null without a bias
  float* weight_update;
  float* bias_update;
  float* weight_product;  // <dW, U> of the weights
  float* bias_product;    // and of the bias
};

void precondition(const std::vector<KroneckerLayer>& layers);

}  // namespace ms_kfac
