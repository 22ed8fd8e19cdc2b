// Z of Woodbury's identity for factors of low rank, many of them at a time and of any sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ms_kfac {

// (D I + X' X)^-1 = (I - Z' Z) / D with D I + X X' = L L' and Z = L^-1 X, where X is scale times the rows.
struct LowRankFactor {
  std::string name;  // in messages
  const float* rows;
  int rank;
  int size;  // of a row
  float scale;
  float damping;
  float* Z;  // rank rows
};

// Throws std::runtime_error that names the first factor that holds NaN or infinity, or has such a damping.
void require_finite(const std::vector<LowRankFactor>& factors);

// Computes them all, if they are finite: else nothing is written and require_finite throws. What is not positive
// definite in float32 is decomposed in float64; where that fails too, throws std::runtime_error that names the factor.
// The Z that was there stays then, but those of other factors may have been replaced.
void invert_low_rank(std::vector<LowRankFactor> factors);

}  // namespace ms_kfac
