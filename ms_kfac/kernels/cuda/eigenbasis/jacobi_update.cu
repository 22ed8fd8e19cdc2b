#include "../inverse/sweep.h"
#include "../scheduling/item_batch.h"
#include "../tile/tile.h"
#include "jacobi.h"

namespace ms_kfac {
namespace {

// Blocks of F, one per two pairs, then blocks of Q, one per pair and 64 rows.
struct Item {
  JacobiRound round;

  __host__ __device__ int64_t of_matrix() const {
    const int64_t pairs = round.of.pairs();
    return pairs * (pairs + 1) / 2;
  }
  // Q has as many blocks of 64 rows as F has pairs.
  int64_t blocks() const { return of_matrix() + round.of.pairs() * round.of.pairs(); }
};

using Batch = ItemBatch<Item, Verdicts>;

// An operand of 64 rows and a depth of 64, in the order that multiply() reads.
using Operand = float[kPair / kDepth][kPair * kDepth];
union Memory {
  struct {
    Operand left, right;
  } operands;
  float result[kPair][kPair + 1];
};

__device__ float& element(Operand& operand, int row, int depth) {
  return operand[depth / kDepth][place<float>(row, depth % kDepth)];
}

// Fills an operand with value(row, depth). Adjacent threads have adjacent depths.
template <typename Value>
__device__ void fill(Operand& operand, const Value& value) {
  for (int place = threadIdx.x; place < kPairNumbers; place += kThreads) {
    const int row = place / kPair, depth = place % kPair;
    element(operand, row, depth) = value(row, depth);
  }
}

// U^T of a pair.
__device__ void fill_rotations(Operand& operand, const JacobiMatrix& of, int pair) {
  const float* from = of.rotations + static_cast<int64_t>(pair) * kPairNumbers;
  const bool rotated = of.rotated[pair] != 0;
  fill(operand, [&](int row, int depth) { return rotated ? from[row * kPair + depth] : row == depth ? 1.0f : 0.0f; });
}

__device__ void multiply_pairs(const Memory& memory, Tile<kPair>& tile) {
  for (int k = 0; k < kPair / kDepth; ++k)
    multiply<Precision::kFloat32>(memory.operands.left[k] + tile.first_row() * kDepth,
                                  memory.operands.right[k] + tile.first_column() * kDepth, threadIdx.x % 32, tile.sums);
}

// Q U of 64 rows and one pair.
__device__ void update_vectors(const JacobiRound& round, int rows, int pair, Memory& memory) {
  const JacobiMatrix& of = round.of;
  if (!round.is_first() && of.rotated[pair] == 0) return;
  fill(memory.operands.left, [&](int i, int depth) {
    const int row = rows * kPair + i, column = round.row(pair, depth);
    if (round.is_first() || row >= of.size || column >= of.size) return row == column ? 1.0f : 0.0f;
    return of.vectors[static_cast<int64_t>(row) * of.size + column];
  });
  fill_rotations(memory.operands.right, of, pair);
  __syncthreads();
  Tile<kPair> tile;
  multiply_pairs(memory, tile);
  tile.each([&](int i, int j, float& value) {
    const int row = rows * kPair + i, column = round.row(pair, j);
    if (row < of.size && column < of.size) of.vectors[static_cast<int64_t>(row) * of.size + column] = value;
  });
}

// U_a^T F_ab U_b of two pairs, and its transpose.
__device__ void update_matrix(const JacobiRound& round, int a, int b, Memory& memory) {
  const JacobiMatrix& of = round.of;
  if (of.rotated[a] == 0 && of.rotated[b] == 0) return;
  const auto at = [&](int row, int column) { return of.matrix + static_cast<int64_t>(row) * of.stride() + column; };
  fill(memory.operands.left, [&](int i, int k) { return *at(round.row(a, i), round.row(b, k)); });
  fill_rotations(memory.operands.right, of, b);
  __syncthreads();
  {
    Tile<kPair> product;
    multiply_pairs(memory, product);
    __syncthreads();
    product.each([&](int k, int j, float& value) { element(memory.operands.right, j, k) = value; });
  }
  fill_rotations(memory.operands.left, of, a);
  __syncthreads();
  Tile<kPair> tile;
  multiply_pairs(memory, tile);
  __syncthreads();
  tile.each([&](int i, int j, float& value) { memory.result[i][j] = value; });
  __syncthreads();
  for (int place = threadIdx.x; place < kPairNumbers; place += kThreads) {
    const int i = place / kPair, j = place % kPair;
    if (a == b) {
      *at(round.row(a, i), round.row(a, j)) = memory.result[max(i, j)][min(i, j)];
    } else {
      *at(round.row(a, i), round.row(b, j)) = memory.result[i][j];
      *at(round.row(b, i), round.row(a, j)) = memory.result[j][i];
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2) jacobi_update(const __grid_constant__ Batch batch) {
  __shared__ Memory memory;
  unsigned block;
  const Item& item = batch.items[batch.find(block)];
  if (!batch.common.written(item.round.of.index)) return;
  const int index = static_cast<int>(block), of_matrix = static_cast<int>(item.of_matrix());
  if (index < of_matrix) {
    const TriangleIndex pairs(index);
    update_matrix(item.round, pairs.row, pairs.column, memory);
  } else {
    const int pairs = item.round.of.pairs();
    update_vectors(item.round, (index - of_matrix) / pairs, (index - of_matrix) % pairs, memory);
  }
}

}  // namespace

void apply_rotations(const std::vector<JacobiRound>& rounds, const Verdicts& verdicts, cudaStream_t stream) {
  std::vector<Item> items;
  for (const JacobiRound& round : rounds) items.push_back({round});
  launch_items(jacobi_update, items, verdicts, kThreads, stream);
}

}  // namespace ms_kfac
