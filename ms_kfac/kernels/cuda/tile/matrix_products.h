// Products of many matrices of any sizes in one launch, C = L R, on strided views without copies.
#pragma once

#include "../scheduling/item_batch.h"
#include "global_memory.h"
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
  // Whether a launch in TF32 may round the operands.
  static constexpr bool kMayRound = true;

  MatrixView left, right, result;
  int rows, columns, depth;
  int count;
  int side;  // of a tile
  // Factor of the result: product i uses scale[i scale_step]; null means 1.
  int scale_step;
  const float* scale;

  int64_t across() const { return (columns + side - 1) / side; }
  int64_t blocks() const { return count * across() * ((rows + side - 1) / side); }

  // Before the product, in one thread of each block: shrinks what only the device knows to be smaller.
  __device__ void limit() {}

  // Epilogue: the final value of element (row, column) of product i.
  __device__ float finish(int, int, int, float element, float factor) const { return factor * element; }
};

// A block's tile: which of the products, and the first element of its result. It is in shared memory, like the product
// itself, to save registers.
struct ProductTile {
  int index, row, column;

  __device__ static ProductTile of(const MatrixProduct& product, unsigned block) {
    const int side = product.side;
    const unsigned across = (product.columns + side - 1) / side, down = (product.rows + side - 1) / side;
    return {static_cast<int>(block / (across * down)), static_cast<int>(block / across % down) * side,
            static_cast<int>(block % across) * side};
  }
};

// The number of the thread, read anew by each call. What follows from threadIdx.x is kept in registers during the whole
// loop over the depth, and with products in TF32 there are too few.
__device__ inline int thread_number() {
#ifdef __CUDACC__
  int number;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
#else
  return threadIdx.x;
#endif
}

// Operand loader. In each layout adjacent threads read adjacent addresses: a thread stays in one column and moves down
// the rows.
template <int kSide, bool kLeftTransposed, bool kRightTransposed>
class MatrixOperands {
 public:
  static constexpr bool kLeftDepthFirst = !kLeftTransposed, kRightDepthFirst = kRightTransposed;
  static constexpr int kElements = SyncedTensor<kSide, false>::kElements;

  __device__ MatrixOperands(const MatrixProduct& product, const ProductTile& at) : product_(product), at_(at) {}

  __device__ void load(int64_t depth, bool, float (&left)[kElements], float (&right)[kElements]) const {
    const int from = static_cast<int>(depth);
    read<kLeftDepthFirst>(product_.left, at_.row, product_.rows, from, left);
    read<kRightDepthFirst>(product_.right, at_.column, product_.columns, from, right);
  }

 private:
  template <bool kDepthFirst>
  __device__ void read(const MatrixView& view, int first, int features, int depth, float (&values)[kElements]) const {
    using Own = SyncedTensor<kSide, kDepthFirst>;
    const int thread = thread_number();
    const int feature = first + Own::feature(thread, 0), deep = depth + Own::depth(thread, 0);
    const int row = kDepthFirst ? feature : deep, column = kDepthFirst ? deep : feature;
    const int rows = kDepthFirst ? features : product_.depth, columns = kDepthFirst ? product_.depth : features;
    constexpr int kStep = kDepthFirst ? kThreads / kDepth : kThreads / kSide;
    const int present = column < columns ? rows - row : 0;
    int next_row;
    const float* from = opaque_in_global(view.at(static_cast<int64_t>(at_.index) * view.row_step + row,
                                                 view.column + at_.index * view.column_step + column, next_row));
    const int64_t step = static_cast<int64_t>(kStep) * next_row;
    if (first + kSide <= features && depth + kDepth <= product_.depth) {
#pragma unroll
      for (int j = 0; j < kElements; ++j) values[j] = from[j * step];
      return;
    }
#pragma unroll
    for (int j = 0; j < kElements; ++j) values[j] = kStep * j < present ? from[j * step] : 0.0f;
  }

  const MatrixProduct& product_;
  const ProductTile& at_;
};

template <int kSide, Precision kPrecision, bool kLeftTransposed, bool kRightTransposed, typename Product>
__device__ void multiply_one_tile(const Product& product, const ProductTile& at, TileMemory<kSide>& memory) {
  MatrixOperands<kSide, kLeftTransposed, kRightTransposed> operands(product, at);
  Tile<kSide> tile;
  multiply_tile<kSide, kPrecision>(operands, 0, product.depth, false, memory, tile);
  const float factor = product.scale != nullptr ? product.scale[at.index * product.scale_step] : 1.0f;
  const MatrixView& result = product.result;
  tile.each([&](int i, int j, float& element) {
    const int row = at.row + i, column = at.column + j;
    if (row >= product.rows || column >= product.columns) return;
    int next_row;
    *result.at(static_cast<int64_t>(at.index) * result.row_step + row,
               result.column + at.index * result.column_step + column, next_row) =
        product.finish(at.index, row, column, element, factor);
  });
}

namespace {

struct NothingCommon {};

// Product is a MatrixProduct, or a derived class with its own limit() or finish().
template <Precision kPrecision, bool kLeftTransposed, bool kRightTransposed, typename Product>
__global__ void __launch_bounds__(kThreads, 2)
    multiply_matrices(const __grid_constant__ ItemBatch<Product, NothingCommon> batch) {
  __shared__ union {
    TileMemory<128> large;
    TileMemory<64> small;
  } memory;
  __shared__ ProductTile at;
  __shared__ Product product;
  unsigned block;
  const int item = batch.find(block);
  if (threadIdx.x == 0) {
    product = batch.items[item];
    at = ProductTile::of(product, block);
    product.limit();
  }
  __syncthreads();
  if (at.row >= product.rows || at.column >= product.columns) return;
  if (product.side == 128)
    multiply_one_tile<128, kPrecision, kLeftTransposed, kRightTransposed>(product, at, memory.large);
  else
    multiply_one_tile<64, kPrecision, kLeftTransposed, kRightTransposed>(product, at, memory.small);
}

}  // namespace

// Launches all products, those of the greatest depth first. Larger tiles read less per product, but are used only if
// they are not mostly padding and if they keep all multiprocessors busy. The precision is float32 or TF32; it is
// float32 for products that may not round.
template <bool kLeftTransposed = false, bool kRightTransposed = false, typename Product>
void launch_products(std::vector<Product> products, Precision precision, int multiprocessors, cudaStream_t stream) {
  int64_t large = 0;
  for (Product& product : products) {
    product.side = product.rows > 64 && product.columns > 64 ? 128 : 64;
    large += product.blocks();
  }
  if (large < multiprocessors)
    for (Product& product : products) product.side = 64;
  std::stable_sort(products.begin(), products.end(),
                   [](const Product& one, const Product& other) { return one.depth > other.depth; });
  auto kernel = multiply_matrices<Precision::kFloat32, kLeftTransposed, kRightTransposed, Product>;
  if constexpr (Product::kMayRound)
    if (precision == Precision::kTf32)
      kernel = multiply_matrices<Precision::kTf32, kLeftTransposed, kRightTransposed, Product>;
  launch_items(kernel, products, NothingCommon{}, kThreads, stream);
}

}  // namespace ms_kfac
