// Inverts or decomposes symmetric positive definite matrices in place, in tiles, many of any sizes at a time.
//
// Panel k of 64 columns is swept in two launches for all matrices that have one. With the pivot A_kk = L L^T
//
//   W_i = A_ik L^-T           for all rows i except the pivot's; above the pivot A_ik is A_ki^T
//   A_ij -= W_i W_j^T         for all tiles outside panel k;  A_ik := W_i L^-1;  A_kk := -L^-T L^-1
//
// After all panels have been swept, the tiles hold -A^-1 (Gauss-Jordan elimination of a symmetric matrix; Bientinesi,
// Gunter & van de Geijn 2008, "Families of algorithms related to the inversion of a symmetric positive definite
// matrix", the one-sweep algorithm). That is n^3 / 2 multiply-adds, nearly all in products of independent tiles. Rows
// below the pivot undergo a blocked Cholesky decomposition. It uses substitution where a product with the pivot's
// inverse would cost accuracy. Rows above the pivot accumulate squares, without cancellation. The block that updates
// the next pivot's tile decomposes it at once, while other blocks still update.
//
// Decomposition leaves the rows above the pivot unchanged: A_ik := W_i and A_kk := the pivot's columns, see Pivot.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

namespace ms_kfac {

// Side of tiles, and width of panels.
constexpr int kPanel = 64;
constexpr int kTileNumbers = kPanel * kPanel;

// Position of the index-th tile of a lower triangle, counted row by row.
struct TriangleIndex {
  int row = 0, column;

  // There are at most a few dozen rows.
  __device__ explicit TriangleIndex(int index) {
    while (index > row) index -= ++row;
    column = index;
  }
};

// The factor L of a pivot L L^T, with 1 / L_jj on the diagonal. Element (j, i) of `columns` and element (i, j) of
// `rows` are L_ij.
struct Pivot {
  float columns[kPanel][kPanel], rows[kPanel][kPanel];
};

struct SweptMatrix {
  // Tile (i, j), j <= i, has index i (i + 1) / 2 + j and is row-major. Diagonal tiles hold both triangles. Beyond the
  // matrix's size the tiles hold the identity.
  float* tiles;
  float* strip;      // panels * kTileNumbers numbers: W, column-major
  Pivot* pivot;      // of the current panel
  unsigned* failed;  // raised if a pivot is not positive
  int panels;

  __host__ __device__ static int64_t tile_index(int row, int column) {
    return static_cast<int64_t>(row) * (row + 1) / 2 + column;
  }
  __host__ __device__ float* tile(int row, int column) const { return tiles + tile_index(row, column) * kTileNumbers; }
};

inline int panels_of(int size) { return (size + kPanel - 1) / kPanel; }
inline int64_t tiles_of(int panels) { return SweptMatrix::tile_index(panels, 0); }

// Sweeps all matrices. On failure a matrix's word `failed` is raised to at least `failure`.
void sweep(std::vector<SweptMatrix> matrices, bool decompose, unsigned failure, cudaStream_t stream);

}  // namespace ms_kfac
