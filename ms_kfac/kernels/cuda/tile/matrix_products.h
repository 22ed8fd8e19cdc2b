// Products of many matrices of any sizes in one launch, C = L R in float32, on strided views without copies.
#pragma once

#include "../scheduling/item_batch.h"
#include "tile.h"

namespace ms_kfac {

// A row-major matrix whose last column may be stored separately: a bias next to its weights. For the i-th of several
// products it begins at row i row_step and column `column` + i column_step.
struct MatrixView {
  float* values;
  float* last;  // column number `columns`, or null
  int columns;
  int column, column_step, row_step;

  __device__ float* at(int64_t row, int number, int& next_row) const {
    if (last != nullptr && number == columns) {
      next_row = 1;
      return last + row;
    }
    next_row = columns;
    return values + row * columns + number;
  }
};

// One product, or several that differ only in where their matrices begin.
struct MatrixProduct {
  MatrixView left, right, result;
  int rows, columns, depth;
  int count;
  int side;  // of a tile
  // Factor of the result: product i uses scale[i scale_step]; null means 1.
  int scale_step;
  const float* scale;

  int64_t across() const { return (columns + side - 1) / side; }
  int64_t blocks() const { return count * across() * ((rows + side - 1) / side); }

  // Epilogue: the final value of element (row, column) of product i.
  __device__ float finish(int, int, int, float element, float factor) const { return factor * element; }
};

// Operand loader. In each layout adjacent threads read adjacent addresses: a thread stays in one column and moves down
// the rows.
template <int kSide, bool kLeftTransposed, bool kRightTransposed>
class MatrixOperands {
 public:
  static constexpr bool kLeftDepthFirst = !kLeftTransposed, kRightDepthFirst = kRightTransposed;
  static constexpr int kElements = SyncedTensor<kSide, false>::kElements;

  // The tile of product `index` that begins at (row, column).
  __device__ MatrixOperands(const MatrixProduct& product, int index, int row, int column)
      : product_(product), index_(index), row_(row), column_(column) {}

  __device__ void load(int64_t depth, bool, float (&left)[kElements], float (&right)[kElements]) const {
    const int from = static_cast<int>(depth);
    read<kLeftDepthFirst>(product_.left, row_, product_.rows, from, left);
    read<kRightDepthFirst>(product_.right, column_, product_.columns, from, right);
  }

 private:
  template <bool kDepthFirst>
  __device__ void read(const MatrixView& view, int first, int features, int depth, float (&values)[kElements]) const {
    using Own = SyncedTensor<kSide, kDepthFirst>;
    const int feature = first + Own::feature(threadIdx.x, 0), deep = depth + Own::depth(threadIdx.x, 0);
    const int row = kDepthFirst ? feature : deep, column = kDepthFirst ? deep : feature;
    const int rows = kDepthFirst ? features : product_.depth, columns = kDepthFirst ? product_.depth : features;
    constexpr int kStep = kDepthFirst ? kThreads / kDepth : kThreads / kSide;
    int next_row;
    const float* from = view.at(static_cast<int64_t>(index_) * view.row_step + row,
                                view.column + index_ * view.column_step + column, next_row);
#pragma unroll
    for (int j = 0; j < kElements; ++j, from += static_cast<int64_t>(kStep) * next_row)
      values[j] = column < columns && row + kStep * j < rows ? *from : 0.0f;
  }

  const MatrixProduct& product_;
  int index_, row_, column_;
};

template <int kSide, bool kLeftTransposed, bool kRightTransposed, typename Product>
__device__ void multiply_one_tile(const Product& product, unsigned block, TileMemory<kSide>& memory) {
  const unsigned across = (product.columns + kSide - 1) / kSide, down = (product.rows + kSide - 1) / kSide;
  const int index = block / (across * down);
  const int first_row = block / across % down * kSide, first_column = block % across * kSide;
  MatrixOperands<kSide, kLeftTransposed, kRightTransposed> operands(product, index, first_row, first_column);
  Tile<kSide> tile;
  multiply_tile<kSide, Precision::kFloat32>(operands, 0, product.depth, false, memory, tile);
  const float factor = product.scale != nullptr ? product.scale[index * product.scale_step] : 1.0f;
  const MatrixView& result = product.result;
  tile.each([&](int i, int j, float& element) {
    const int row = first_row + i, column = first_column + j;
    if (row >= product.rows || column >= product.columns) return;
    int next_row;
    *result.at(static_cast<int64_t>(index) * result.row_step + row, result.column + index * result.column_step + column,
               next_row) = product.finish(index, row, column, element, factor);
  });
}

namespace {

struct NothingCommon {};

// Product is a MatrixProduct, or a derived class with its own epilogue finish().
template <bool kLeftTransposed, bool kRightTransposed, typename Product>
__global__ void __launch_bounds__(kThreads, 2)
    multiply_matrices(const __grid_constant__ ItemBatch<Product, NothingCommon> batch) {
  __shared__ union {
    TileMemory<128> large;
    TileMemory<64> small;
  } memory;
  unsigned block;
  const Product& product = batch.items[batch.find(block)];
  if (product.side == 128)
    multiply_one_tile<128, kLeftTransposed, kRightTransposed>(product, block, memory.large);
  else
    multiply_one_tile<64, kLeftTransposed, kRightTransposed>(product, block, memory.small);
}

}  // namespace

// Launches all products, those of the greatest depth first. Larger tiles read less per product, but are used only if
// they are not mostly padding and if they keep all multiprocessors busy.
template <bool kLeftTransposed = false, bool kRightTransposed = false, typename Product>
void launch_products(std::vector<Product> products, int multiprocessors, cudaStream_t stream) {
  int64_t large = 0;
  for (Product& product : products) {
    product.side = product.rows > 64 && product.columns > 64 ? 128 : 64;
    large += product.blocks();
  }
  if (large < multiprocessors)
    for (Product& product : products) product.side = 64;
  std::stable_sort(products.begin(), products.end(),
                   [](const Product& one, const Product& other) { return one.depth > other.depth; });
  launch_items(multiply_matrices<kLeftTransposed, kRightTransposed, Product>, products, NothingCommon{}, kThreads,
               stream);
}

}  // namespace ms_kfac
