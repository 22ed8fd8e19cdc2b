// Z of the Woodbury identity for low-rank factors, many of any sizes at a time.
//
// DampedInverses calls these functions between its own launches.
#pragma once

#include <vector>

#include "../scheduling/launch.h"
#include "inverse_status.h"
#include "sweep.h"

namespace ms_kfac {

// (D I + X' X)^-1 = (I - Z' Z) / D with D I + X X' = L L' and Z = L^-1 X, where X is scale times the rows. All pointers
// are device pointers.
struct LowRankFactor {
  const float* rows;
  int rank;
  int size;  // of a row
  const float* scale;
  const float* damping;
  float* Z;   // `size` rows: the first `rank` are Z, the others are set to zero
  int index;  // as in DampedFactor
};

struct LowRankItem {
  LowRankFactor of;
  float* tiles;  // of D I + X X'
};

// Fills in the tiles.
void load_small(const std::vector<LowRankItem>& items, const Outcomes& outcomes, cudaStream_t stream);

// Computes Z from the tiles' Cholesky factors, or reports the failure to the host.
void solve_rows(const std::vector<LowRankItem>& items, const Outcomes& outcomes, cudaStream_t stream);

}  // namespace ms_kfac
