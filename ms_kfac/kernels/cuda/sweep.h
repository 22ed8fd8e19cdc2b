// Symmetric positive definite matrices in tiles, inverted or decomposed in place, many of any sizes at a time.
//
// Panel k of 64 columns is swept in two launches for all matrices that have one: with the pivot A_kk = L L^T
//
//   W_i = A_ik L^-T           for all rows i but the pivot's, A_ik being A_ki^T above it
//   A_ij -= W_i W_j^T         for all tiles beside panel k;  A_ik := W_i L^-1;  A_kk := -L^-T L^-1
//
// and leaves -A^-1 when all panels have been swept (Gauss-Jordan elimination of a symmetric matrix; Bientinesi, Gunter
// & van de Geijn 2008, "Families of algorithms related to the inversion of a symmetric positive definite matrix", the
// one-sweep algorithm). That is n^3 multiply-adds, nearly all of them in products of tiles that do not wait for one
// another. Rows below the pivot go through a blocked Cholesky decomposition, with substitution where a product with the
// pivot's inverse would cost accuracy; rows above it add up squares, which cancel nothing. The block that updates the
// next pivot's tile decomposes it at once, while others still update.
//
// To decompose, rows above the pivot are left alone: A_ik := W_i and A_kk := the pivot's columns, see Pivot.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

namespace ms_kfac {

// Side of tiles, and width of panels.
constexpr int kPanel = 64;
constexpr int kTileNumbers = kPanel * kPanel;

// Where the index-th tile of a lower triangle is, counted row by row.
struct TriangleIndex {
  int row = 0, column;

  // At most a few dozen rows.
  __device__ explicit TriangleIndex(int index) {
    while (index > row) index -= ++row;
    column = index;
  }
};

// The numbers of a pivot L L^T with 1 / L_jj on the diagonal: element (j, i) of `columns` is L_ij, (i, j) of `rows`
// too.
struct Pivot {
  float columns[kPanel][kPanel], rows[kPanel][kPanel];
};

struct SweptMatrix {
  // Tile (i, j), j <= i, is the i (i + 1) / 2 + j-th, by rows; tiles of the diagonal hold both triangles. Beyond the
  // matrix's own size they hold the identity.
  float* tiles;
  float* strip;      // panels * kTileNumbers numbers: W by columns
  Pivot* pivot;      // of the present panel
  unsigned* failed;  // raised where a pivot is not positive
  int panels;

  __host__ __device__ static int64_t tile_index(int row, int column) {
    return static_cast<int64_t>(row) * (row + 1) / 2 + column;
  }
  __host__ __device__ float* tile(int row, int column) const { return tiles + tile_index(row, column) * kTileNumbers; }
};

inline int panels_of(int size) { return (size + kPanel - 1) / kPanel; }
inline int64_t tiles_of(int panels) { return SweptMatrix::tile_index(panels, 0); }

// Sweeps all of them. A word `failed` becomes at least `failure`.
void sweep(std::vector<SweptMatrix> matrices, bool decompose, unsigned failure, cudaStream_t stream);

}  // namespace ms_kfac
