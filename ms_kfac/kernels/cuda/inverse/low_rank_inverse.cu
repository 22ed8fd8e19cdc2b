#include "../scheduling/item_batch.h"
#include "../tile/substitution.h"
#include "../tile/tile.h"
#include "low_rank_inverse.h"

namespace ms_kfac {
namespace {

// An item of a launch, with its number of blocks.
struct Item {
  LowRankItem item;
  int64_t of_blocks;

  int64_t blocks() const { return of_blocks; }
};

using Batch = ItemBatch<Item, Outcomes>;

// Operand loader of the tiles of X X', for rows of X. The depth is the length of a row.
class RowPair {
 public:
  static constexpr bool kLeftDepthFirst = true, kRightDepthFirst = true;
  using Rows = SyncedTensor<kPanel, true>;

  __device__ RowPair(const LowRankFactor& of, int row, int column) : of_(of), row_(row), column_(column) {}

  __device__ void load(int64_t depth, bool same, float (&left)[Rows::kElements],
                       float (&right)[Rows::kElements]) const {
    read(depth, row_, left);
    if (!same) read(depth, column_, right);
  }

 private:
  __device__ void read(int64_t depth, int first, float (&values)[Rows::kElements]) const {
    const int64_t column = depth + Rows::depth(threadIdx.x, 0);
#pragma unroll
    for (int j = 0; j < Rows::kElements; ++j) {
      const int row = first + Rows::feature(threadIdx.x, j);
      values[j] = row < of_.rank && column < of_.size ? of_.rows[static_cast<int64_t>(row) * of_.size + column] : 0.0f;
    }
  }

  const LowRankFactor& of_;
  int row_, column_;
};

// Computes a lower tile of D I + X X', padded with the identity beyond the rank.
__global__ void __launch_bounds__(kThreads) low_rank_inverse_gram_tiles(const __grid_constant__ Batch batch) {
  __shared__ TileMemory<kPanel> memory;
  unsigned block;
  const LowRankItem& item = batch.items[batch.find(block)].item;
  const LowRankFactor& of = item.of;
  const TriangleIndex at(static_cast<int>(block));
  Tile<kPanel> tile;
  RowPair operands(of, at.row * kPanel, at.column * kPanel);
  multiply_tile<kPanel, Precision::kFloat32>(operands, 0, of.size, at.row == at.column, memory, tile);
  const float scale = *of.scale, damping = *of.damping, square = scale * scale;
  float* to = item.tiles + static_cast<int64_t>(block) * kTileNumbers;
  bool finite = true;
  tile.each([&](int i, int j, float& element) {
    const int row = at.row * kPanel + i, column = at.column * kPanel + j;
    finite = finite && isfinite(element);
    float value = square * element;
    if (row == column) value = row < of.rank ? value + damping : 1.0f;
    to[i * kPanel + j] = value;
  });
  if (threadIdx.x == 0 && !(isfinite(scale) && isfinite(damping))) batch.common.fail(of.index, kDampingNotFinite);
  if (!finite) batch.common.fail(of.index, kNotFinite);
}

// Operand loader: the tiles of L left of a panel's pivot, and the rows of Z above the panel.
class SolvedRows {
 public:
  static constexpr bool kLeftDepthFirst = true, kRightDepthFirst = false;
  using Left = SyncedTensor<kPanel, true>;
  using Right = SyncedTensor<kPanel, false>;

  __device__ SolvedRows(const LowRankItem& item, int panel, int column)
      : left_(item.tiles + SweptMatrix::tile_index(panel, 0) * kTileNumbers),
        Z_(item.of.Z),
        size_(item.of.size),
        column_(column + Right::feature(threadIdx.x, 0)) {}

  __device__ void load(int64_t depth, bool, float (&left)[Left::kElements], float (&right)[Right::kElements]) const {
    const float* tile = left_ + depth / kPanel * kTileNumbers + depth % kPanel;
#pragma unroll
    for (int j = 0; j < Left::kElements; ++j)
      left[j] = tile[Left::feature(threadIdx.x, j) * kPanel + Left::depth(threadIdx.x, j)];
#pragma unroll
    for (int j = 0; j < Right::kElements; ++j)
      right[j] = column_ < size_ ? Z_[(depth + Right::depth(threadIdx.x, j)) * size_ + column_] : 0.0f;
  }

 private:
  const float* left_;
  const float* Z_;
  int64_t size_;
  int column_;
};

// Computes 64 columns of Z, which are independent of the others. Per panel,
// Z_k = L_kk^-1 (X_k - sum over j < k of L_kj Z_j).
__global__ void __launch_bounds__(kThreads, 2) low_rank_inverse_solve_columns(const __grid_constant__ Batch batch) {
  __shared__ union {
    TileMemory<kPanel> tile;
    float triangle[kPanel][kPanel];
  } memory;
  __shared__ RightHandSides x;
  unsigned block;
  const LowRankItem& item = batch.items[batch.find(block)].item;
  const LowRankFactor& of = item.of;
  if (!batch.common.verdicts.written(of.index)) {
    const Outcome outcome = batch.common.of(of.index);
    if (block == 0 && threadIdx.x == 0 && outcome != kFine) batch.common.of_factors[of.index] = outcome;
    return;
  }
  const float scale = *of.scale;
  const int first_column = static_cast<int>(block) * kPanel;
  const int64_t size = of.size;
  for (int first_row = 0; first_row < of.rank; first_row += kPanel) {
    Tile<kPanel> tile;
    SolvedRows operands(item, first_row / kPanel, first_column);
    multiply_tile<kPanel, Precision::kFloat32>(operands, 0, first_row, false, memory.tile, tile);
    tile.each([&](int i, int j, float& element) {
      const int row = first_row + i, column = first_column + j;
      const bool there = row < of.rank && column < size;
      x[i][j] = there ? scale * of.rows[row * size + column] - element : 0.0f;
    });
    const int64_t pivot = SweptMatrix::tile_index(first_row / kPanel, first_row / kPanel);
    for (int i = threadIdx.x; i < kTileNumbers; i += kThreads)
      memory.triangle[i / kPanel][i % kPanel] = item.tiles[pivot * kTileNumbers + i];
    __syncthreads();
    if (threadIdx.x < kPanel) substitute<true>(memory.triangle, x);
    __syncthreads();
    for (int i = threadIdx.x; i < kTileNumbers; i += kThreads) {
      const int row = first_row + i / kPanel, column = first_column + i % kPanel;
      if (row < of.rank && column < size) of.Z[row * size + column] = x[i / kPanel][i % kPanel];
    }
    __syncthreads();
  }
  const int column = first_column + static_cast<int>(threadIdx.x) % kPanel;
  for (int64_t row = of.rank + threadIdx.x / kPanel; row < size; row += kThreads / kPanel)
    if (column < size) of.Z[row * size + column] = 0.0f;
}

void launch_all(void (*kernel)(const Batch), const std::vector<LowRankItem>& low_rank, int64_t (*blocks)(int, int),
                const Outcomes& outcomes, cudaStream_t stream) {
  std::vector<Item> items;
  for (const LowRankItem& item : low_rank) items.push_back({item, blocks(item.of.rank, item.of.size)});
  launch_items(kernel, items, outcomes, kThreads, stream);
}

}  // namespace

void load_small(const std::vector<LowRankItem>& items, const Outcomes& outcomes, cudaStream_t stream) {
  launch_all(
      low_rank_inverse_gram_tiles, items, [](int rank, int) { return tiles_of(panels_of(rank)); }, outcomes, stream);
}

void solve_rows(const std::vector<LowRankItem>& items, const Outcomes& outcomes, cudaStream_t stream) {
  launch_all(
      low_rank_inverse_solve_columns, items, [](int, int size) { return int64_t{panels_of(size)}; }, outcomes, stream);
}

}  // namespace ms_kfac
