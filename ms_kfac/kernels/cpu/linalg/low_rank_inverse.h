// Z of Woodbury's identity for factors of low rank: many per call, of any sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ms_kfac {

// (D I + X' X)^-1 = (I - Z' Z) / D with D I + X X' = L L' and Z = L^-1 X, where X is scale times the rows.
struct LowRankFactor {
  std::string name;  // for messages
  const float* rows;
  int rank;
  int size;  // length of a row
  float scale;
  float damping;
  float* Z;  // rank rows
};

// Throws FactorFailure for the first factor whose entries or damping are NaN or infinite.
void require_finite(const std::vector<LowRankFactor>& factors);

// Computes all Z. Calls require_finite first, so nothing is written if it throws. A factor that is not positive
// definite in float32 is decomposed in float64. If that fails, too, throws FactorFailure. All factors then keep their
// old Z.
void invert_low_rank(std::vector<LowRankFactor> factors);

}  // namespace ms_kfac
