// Inverses after a rank-one update of what was inverted.
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

// Does them all: X = P^-1 becomes (P + weight u u')^-1 (Sherman & Morrison). Of X the upper triangle is read; both
// triangles are written.
void update_inverses(const std::vector<RankOneUpdate>& updates);

}  // namespace ms_kfac
