// Z of Woodbury's identity for factors of low rank, many of them at a time and of any sizes.
//
// Launched by DampedInverses, between whose launches these come.
#pragma once

#include <vector>

#include "launch.h"
#include "outcomes.h"
#include "sweep.h"

namespace ms_kfac {

// (D I + X' X)^-1 = (I - Z' Z) / D with D I + X X' = L L' and Z = L^-1 X, where X is scale times the rows. All
// addresses are of the device.
struct LowRankFactor {
  const float* rows;
  int rank;
  int size;  // of a row
  const float* scale;
  const float* damping;
  float* Z;   // size rows: rank of them, then zeros
  int index;  // as DampedFactor's
};

struct LowRankItem {
  LowRankFactor of;
  float* tiles;  // of D I + X X'
};

// Fills in the tiles.
void load_small(const std::vector<LowRankItem>& items, const Outcomes& outcomes, cudaStream_t stream);

// Writes Z by the tiles' decompositions, or tells the host what has failed.
void solve_rows(const std::vector<LowRankItem>& items, const Outcomes& outcomes, cudaStream_t stream);

}  // namespace ms_kfac
