// EKFAC: second moments of the per-sample gradients in a Kronecker-factored eigenbasis, s += sum over n of (Q_G^T W_n
// Q_A)^2 with W_n = sum over t of g_nt a_nt^T, in stages of a launch.
//
// There are two orders, and the one with fewer multiply-adds is used:
//  - vectors first: P = A Q_A and R = G Q_G, then R_n^T P_n for each sample;
//  - gradient first: W_n^T, then V_n = W_n Q_A, then Q_G^T V_n.
// A workspace passes results from stage to stage, for as many samples at a time as fit. The last product is never
// written: its blocks loop over samples and accumulate the squares. With one location per sample the stages write the
// squares of P and R instead, and the sum over samples is a matrix product, s += (R^2)^T P^2.
#pragma once

#include "../operands/layer_batch.h"
#include "../operands/vector_products.h"
#include "../scheduling/rounds.h"

namespace ms_kfac {

// Matrices of equal size, cut into tiles.
struct TileGrid {
  int rows, columns, side;
  int64_t count;

  __host__ __device__ int across() const { return (columns + side - 1) / side; }
  __host__ __device__ int64_t tiles() const { return count * across() * ((rows + side - 1) / side); }
};

struct TilePlace {
  int64_t item;     // index of the matrix in the grid
  int row, column;  // first element of the tile

  __device__ static TilePlace of(const TileGrid& grid, int64_t tile) {
    const int across = grid.across(), down = (grid.rows + grid.side - 1) / grid.side;
    return {tile / across / down, static_cast<int>(tile / across % down) * grid.side,
            static_cast<int>(tile % across) * grid.side};
  }
};

// With one location per sample: positions per span.
constexpr int kSpan = 256;

struct EigenbasisMoments {
  LayerVectors inputs, gradients;
  const float *Q_A, *Q_G;
  float* sums;  // (groups, e, d)
  int d, e, groups, samples, locations;
  bool vectors_first;
  int at_once;  // samples per round
  Rounds<3> rounds;
  // P and R, (groups, positions, d or e), or W_n^T and V_n, (groups, samples, d, e) and (groups, samples, e, d).
  TileGrid grids[2];
  float* results[2];
  // The tiles of s. Their samples are split among `parts` blocks.
  TileGrid last;
  int parts;
  float* partials;
  unsigned* arrivals;  // one per tile

  EigenbasisMoments(const LayerBatch& batch, int multiprocessors);
  int64_t numbers() const;
  int64_t counters() const { return 3 + last.tiles(); }
  // Sets a workspace of numbers() floats and counters() counters.
  void place(float* workspace, unsigned* counters);
  // Sets the bases and the sums that are updated. Throws std::invalid_argument for arrays of another size.
  void set(const Array& of_inputs, const Array& of_gradients, const Array& of_sums);

  __host__ __device__ bool single() const { return locations == 1; }
  __device__ int samples_in(int round) const {
    const int left = samples - round * at_once;
    return left < at_once ? left : at_once;
  }
  // Spans of a round: one per sample, or kSpan positions each.
  __host__ __device__ int spans(int samples) const { return single() ? (samples + kSpan - 1) / kSpan : samples; }
  __device__ int first_span(int part, int samples) const {
    return static_cast<int>(static_cast<int64_t>(part) * spans(samples) / parts);
  }
};

}  // namespace ms_kfac
