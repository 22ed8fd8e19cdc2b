// Second moments of the samples' gradients in a Kronecker-factored basis, s += sum over n of (Q_G^T W_n Q_A)^2 with
// W_n = sum over t of g_nt a_nt^T, in stages of a launch.
//
// Either vectors are projected first,  P = A Q_A and R = G Q_G, then R_n^T P_n for every sample, or a sample's gradient
// is formed first, W_n^T, then V_n = W_n Q_A, then Q_G^T V_n: whichever multiplies less. What a stage hands to the next
// is in a workspace, for as many samples at a time as it has room for. The last product is never written: its blocks
// go through samples, and add the squares up. With one location a sample, squares of P and R are written in their
// place, and the sum over samples is a product, s += (R^2)^T P^2.
#pragma once

#include "layer_batch.h"
#include "rounds.h"
#include "vector_products.h"

namespace ms_kfac {

// Results of the same size, in tiles.
struct TileGrid {
  int rows, columns, side;
  int64_t count;

  __host__ __device__ int across() const { return (columns + side - 1) / side; }
  __host__ __device__ int64_t tiles() const { return count * across() * ((rows + side - 1) / side); }
};

struct TilePlace {
  int64_t item;     // of the grid's
  int row, column;  // where the tile begins

  __device__ static TilePlace of(const TileGrid& grid, int64_t tile) {
    const int across = grid.across(), down = (grid.rows + grid.side - 1) / grid.side;
    return {tile / across / down, static_cast<int>(tile / across % down) * grid.side,
            static_cast<int>(tile % across) * grid.side};
  }
};

// Positions that are worth a part of their own where samples have one location.
constexpr int kSpan = 256;

struct EigenbasisMoments {
  LayerVectors inputs, gradients;
  const float *Q_A, *Q_G;
  float* sums;  // (groups, e, d)
  int d, e, groups, samples, locations;
  bool vectors_first;
  int at_once;  // samples a round
  Rounds<3> rounds;
  // Of P and R, (groups, positions, d or e), or of W_n^T and V_n, (groups, samples, d, e) and (groups, samples, e, d).
  TileGrid grids[2];
  float* results[2];
  // Of s, whose samples are shared out among parts.
  TileGrid last;
  int parts;
  float* partials;
  unsigned* arrivals;  // one a tile

  EigenbasisMoments(const LayerBatch& batch, int multiprocessors);
  int64_t numbers() const;
  int64_t counters() const { return 3 + last.tiles(); }
  // Gives it a workspace of so many numbers, and so many counters.
  void place(float* workspace, unsigned* counters);
  // Sets the bases and what is added to; refuses those of another size.
  void set(const Array& of_inputs, const Array& of_gradients, const Array& of_sums);

  __host__ __device__ bool single() const { return locations == 1; }
  __device__ int samples_in(int round) const {
    const int left = samples - round * at_once;
    return left < at_once ? left : at_once;
  }
  // Spans of a round: its samples, or kSpan positions each.
  __host__ __device__ int spans(int samples) const { return single() ? (samples + kSpan - 1) / kSpan : samples; }
  __device__ int first_span(int part, int samples) const {
    return static_cast<int>(static_cast<int64_t>(part) * spans(samples) / parts);
  }
};

}  // namespace ms_kfac
