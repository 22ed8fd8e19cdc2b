// Updates of inverses after a rank-one update of the matrix.
#pragma once

#include <vector>

namespace ms_kfac {

// One update: X <- X - (X u)(X u)' / (1 / weight + u' X u), in place, for a symmetric X.
struct RankOneUpdate {
  float* inverse;
  int size;
  std::vector<float> u;
  float weight;
};

// Applies all updates: X = P^-1 becomes (P + weight u u')^-1 (Sherman & Morrison). Reads the upper triangle of X and
// writes both triangles.
void update_inverses(const std::vector<RankOneUpdate>& updates);

}  // namespace ms_kfac
