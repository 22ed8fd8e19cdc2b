#include <algorithm>

#include "../scheduling/item_batch.h"
#include "../scheduling/launch.h"
#include "../tile/substitution.h"
#include "../tile/tile.h"
#include "sweep.h"

namespace ms_kfac {
namespace {

// A matrix of a launch, with its number of blocks.
struct PanelItem {
  SweptMatrix matrix;
  int64_t of_blocks;

  int64_t blocks() const { return of_blocks; }
};

struct Panel {
  int index;
  unsigned failure;
  bool decompose;
};

using Batch = ItemBatch<PanelItem, Panel>;

// Shared memory in which 256 threads decompose a pivot: its current column, double-buffered, so that a step can write
// its column while threads still read the previous one.
using PivotMemory = float[2][kPanel];

// Decomposes and sweeps tile (k, k) column by column. Each thread holds 4 x 4 elements, 16 apart.
__device__ void decompose_pivot(const SweptMatrix& matrix, int k, const Panel& panel, PivotMemory& memory) {
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float* tile = matrix.tile(k, k);
  Pivot& pivot = *matrix.pivot;
  float v[4][4];
#pragma unroll
  for (int a = 0; a < 4; ++a)
#pragma unroll
    for (int b = 0; b < 4; ++b) v[a][b] = tile[(y + 16 * a) * kPanel + x + 16 * b];
  bool positive = true;
#pragma unroll
  for (int quarter = 0; quarter < 4; ++quarter) {
    for (int of_quarter = 0; of_quarter < 16; ++of_quarter) {
      const int j = 16 * quarter + of_quarter;
      float (&column)[kPanel] = memory[j % 2];
      if (x == of_quarter)
#pragma unroll
        for (int a = 0; a < 4; ++a) column[y + 16 * a] = v[a][quarter];
      __syncthreads();
      const float square = column[j], reciprocal = 1.0f / sqrtf(square), inverse = reciprocal * reciprocal;
      // `inverse` is NaN for a negative pivot. It must also be finite and positive in float32.
      positive = positive && inverse > 0.0f && isfinite(inverse);
      float of_row[4], of_column[4];
#pragma unroll
      for (int a = 0; a < 4; ++a) {
        of_row[a] = column[y + 16 * a] * reciprocal;
        of_column[a] = column[x + 16 * a] * reciprocal;
      }
#pragma unroll
      for (int a = 0; a < 4; ++a)
#pragma unroll
        for (int b = 0; b < 4; ++b) v[a][b] = fmaf(-of_row[a], of_column[b], v[a][b]);
      if (y == of_quarter)
#pragma unroll
        for (int b = 0; b < 4; ++b) {
          v[quarter][b] = of_column[b] * reciprocal;
          pivot.columns[j][x + 16 * b] = x + 16 * b == j ? reciprocal : of_column[b];
        }
      if (x == of_quarter)
#pragma unroll
        for (int a = 0; a < 4; ++a) {
          v[a][quarter] = of_row[a] * reciprocal;
          pivot.rows[y + 16 * a][j] = y + 16 * a == j ? reciprocal : of_row[a];
        }
      if (x == of_quarter && y == of_quarter) v[quarter][quarter] = -inverse;
    }
  }
  if (!positive && threadIdx.x == 0) atomicMax(matrix.failed, panel.failure);
  if (panel.decompose) {
    __syncthreads();
    copy_triangle(pivot.columns, *reinterpret_cast<float (*)[kPanel][kPanel]>(tile));
    return;
  }
#pragma unroll
  for (int a = 0; a < 4; ++a)
#pragma unroll
    for (int b = 0; b < 4; ++b) tile[(y + 16 * a) * kPanel + x + 16 * b] = v[a][b];
}

// One block per first pivot.
__global__ void __launch_bounds__(kThreads) sweep_first_pivots(const __grid_constant__ Batch batch) {
  __shared__ PivotMemory memory;
  unsigned block;
  decompose_pivot(batch.items[batch.find(block)].matrix, 0, batch.common, memory);
}

// Computes W for one row of tiles and updates the panel: one block per row of tiles, one thread per matrix row.
__global__ void __launch_bounds__(kPanel) sweep_solve_panels(const __grid_constant__ Batch batch) {
  alignas(16) __shared__ float triangle[kPanel][kPanel];
  alignas(16) __shared__ RightHandSides x;
  unsigned row;
  const SweptMatrix& matrix = batch.items[batch.find(row)].matrix;
  const int i = static_cast<int>(row), k = batch.common.index, thread = threadIdx.x;
  const int64_t rows = static_cast<int64_t>(matrix.panels) * kPanel;
  float* strip = matrix.strip + i * kPanel + thread;
  if (i == k || (batch.common.decompose && i < k)) {
    // A zero W leaves the tiles of this row and column unchanged in the update.
    for (int c = 0; c < kPanel; ++c) strip[c * rows] = 0.0f;
    return;
  }
  copy_triangle(matrix.pivot->columns, triangle);
  float* below = matrix.tile(max(i, k), min(i, k)) + thread * kPanel;
  float* above = matrix.tile(max(i, k), min(i, k)) + thread;
  if (i > k) {
    for (int c = 0; c < kPanel; c += 4) {
      const float4 four = *reinterpret_cast<const float4*>(below + c);
      x[c][thread] = four.x;
      x[c + 1][thread] = four.y;
      x[c + 2][thread] = four.z;
      x[c + 3][thread] = four.w;
    }
  } else {
    for (int c = 0; c < kPanel; ++c) x[c][thread] = above[c * kPanel];
  }
  __syncthreads();
  substitute<true>(triangle, x);
  for (int c = 0; c < kPanel; ++c) strip[c * rows] = x[c][thread];
  if (!batch.common.decompose) {
    __syncthreads();
    copy_triangle(matrix.pivot->rows, triangle);
    __syncthreads();
    substitute<false>(triangle, x);
  }
  if (i > k) {
    for (int c = 0; c < kPanel; c += 4)
      *reinterpret_cast<float4*>(below + c) =
          make_float4(x[c][thread], x[c + 1][thread], x[c + 2][thread], x[c + 3][thread]);
  } else {
    for (int c = 0; c < kPanel; ++c) above[c * kPanel] = x[c][thread];
  }
}

// Operand loader for W_i and W_j.
template <int kSide>
class StripOperands {
 public:
  static constexpr bool kLeftDepthFirst = false, kRightDepthFirst = false;
  static constexpr int kElements = SyncedTensor<kSide, false>::kElements;

  __device__ StripOperands(const SweptMatrix& matrix, int row, int column)
      : strip_(matrix.strip), rows_(matrix.panels * kPanel), row_(row), column_(column) {}

  __device__ void load(int64_t depth, bool same, float (&left)[kElements], float (&right)[kElements]) const {
    read(static_cast<int>(depth), row_, left);
    if (!same) read(static_cast<int>(depth), column_, right);
  }

 private:
  __device__ void read(int depth, int first, float (&values)[kElements]) const {
    // Rows beyond the matrix read its last row; their results are not written.
    const int row = min(first + SyncedTensor<kSide, false>::feature(threadIdx.x, 0), rows_ - 1);
    const float* from = strip_ + (depth + SyncedTensor<kSide, false>::depth(threadIdx.x, 0)) * rows_ + row;
#pragma unroll
    for (int j = 0; j < kElements; ++j) {
      values[j] = *from;
      from += kThreads / kSide * rows_;
    }
  }

  const float* strip_;
  int rows_, row_, column_;
};

// Matrices with more panels use tiles of 128, which reuse operands better. Smaller ones use tiles of 64 for more
// blocks.
constexpr int kFewPanels = 4;

// Tiles of side kSide in a triangle, one block each.
template <int kSide>
int64_t update_blocks(int panels) {
  const int64_t across = (panels * kPanel + kSide - 1) / kSide;
  return across * (across + 1) / 2;
}

// A_ij -= W_i W_j^T. The block of the next pivot's tile also decomposes it.
template <int kSide>
__global__ void __launch_bounds__(kThreads, 2) sweep_update_tiles(const __grid_constant__ Batch batch) {
  __shared__ union {
    TileMemory<kSide> tile;
    PivotMemory pivot;
  } memory;
  constexpr int kPanels = kSide / kPanel;
  unsigned of_matrix;
  const SweptMatrix& matrix = batch.items[batch.find(of_matrix)].matrix;
  const int block = static_cast<int>(of_matrix);
  const int k = batch.common.index, next = k + 1;
  // The next pivot's tile comes first because its block takes longest.
  const int diagonal = next / kPanels, of_pivot = next < matrix.panels ? diagonal * (diagonal + 1) / 2 + diagonal : 0;
  const TriangleIndex at(block == 0 ? of_pivot : (block == of_pivot ? 0 : block));
  const int row = at.row, column = at.column;
  const bool pivot = block == 0 && next < matrix.panels;
  if (batch.common.decompose && kPanels * (row + 1) <= next) return;
  Tile<kSide> tile;
  StripOperands<kSide> operands(matrix, row * kSide, column * kSide);
  multiply_tile<kSide, Precision::kFloat32>(operands, 0, kPanel, row == column, memory.tile, tile);
  // The elements of one warp lie in one tile of the matrix.
  const int panel_row = row * kPanels + tile.first_row() / kPanel;
  const int panel_column = column * kPanels + tile.first_column() / kPanel;
  if (panel_row < matrix.panels && panel_column <= panel_row) {
    const LaneInPiece lane = LaneInPiece::of(threadIdx.x % 32);
    const int first_row = tile.first_row() + lane.row, first_column = tile.first_column() + lane.column;
    float* own = matrix.tile(panel_row, panel_column) + first_row % kPanel * kPanel + first_column % kPanel;
    tile.each([&](int i, int j, float& element) { own[(i - first_row) * kPanel + j - first_column] -= element; });
  }
  if (!pivot) return;
  __syncthreads();
  decompose_pivot(matrix, next, batch.common, memory.pivot);
}

// Launches a kernel for all matrices. Each matrix gets blocks(its panels).
template <typename Blocks>
void launch_panel(void (*kernel)(const Batch), const std::vector<SweptMatrix>& matrices, const Panel& panel,
                  int threads, const Blocks& blocks, cudaStream_t stream) {
  std::vector<PanelItem> items;
  for (const SweptMatrix& matrix : matrices) items.push_back({matrix, blocks(matrix.panels)});
  launch_items(kernel, items, panel, threads, stream);
}

}  // namespace

void sweep(std::vector<SweptMatrix> matrices, bool decompose, unsigned failure, cudaStream_t stream) {
  Panel panel{0, failure, decompose};
  launch_panel(sweep_first_pivots, matrices, panel, kThreads, [](int) { return 1; }, stream);
  for (;; ++panel.index) {
    // A matrix of one panel consists only of its pivot.
    const auto done = [&](const SweptMatrix& of) { return of.panels <= std::max(panel.index, 1); };
    matrices.erase(std::remove_if(matrices.begin(), matrices.end(), done), matrices.end());
    if (matrices.empty()) return;
    launch_panel(sweep_solve_panels, matrices, panel, kPanel, [](int panels) { return panels; }, stream);
    const auto many = std::stable_partition(matrices.begin(), matrices.end(),
                                            [](const SweptMatrix& of) { return of.panels > kFewPanels; });
    launch_panel(sweep_update_tiles<128>, {matrices.begin(), many}, panel, kThreads, update_blocks<128>, stream);
    launch_panel(sweep_update_tiles<64>, {many, matrices.end()}, panel, kThreads, update_blocks<64>, stream);
  }
}

}  // namespace ms_kfac
