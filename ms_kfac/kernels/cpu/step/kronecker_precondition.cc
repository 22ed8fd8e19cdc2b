#include "kronecker_precondition.h"

#include <algorithm>

#include "../linalg/blas.h"
#include "../threads/threads.h"
#include "../threads/uneven_tasks.h"
#include "gradient_products.h"

namespace ms_kfac {
namespace {

double cost(const KroneckerLayer& layer) {
  double per_row = 0;
  for (const DiagonalBlock& block : layer.right) per_row += static_cast<double>(block.size) * block.size;
  double per_column = 0;
  for (const DiagonalBlock& block : layer.left) per_column += static_cast<double>(block.size) * block.size;
  return layer.groups * (layer.rows * per_row + layer.width() * per_column);
}

// Computes rows [first, last) of [dW db] A^-1 of one group into the same rows of `result`.
void multiply_right(const KroneckerLayer& layer, int64_t group, int64_t first, int64_t last, float* result) {
  const int64_t stride = layer.width();
  const float* gradient = layer.weight_gradient + group * layer.rows * layer.columns;
  int64_t offset = 0;
  for (const DiagonalBlock& block : layer.right) {
    const float* values = block.values + group * block.size * block.size;
    const int64_t inner = std::min(block.size, layer.columns - offset);
    float* part = result + first * stride + offset;
    const bool has_bias = inner < block.size;
    if (has_bias) {
      const float* bias = layer.bias_gradient + group * layer.rows;
      const float* last_row = values + inner * block.size;
      for (int64_t row = first; row < last; ++row)
        for (int64_t column = 0; column < block.size; ++column)
          part[(row - first) * stride + column] = bias[row] * last_row[column];
    }
    if (inner > 0)
      blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, last - first, block.size, inner, 1.0f,
                  gradient + first * layer.columns + offset, layer.columns, values, block.size, has_bias ? 1.0f : 0.0f,
                  part, stride);
    offset += block.size;
  }
}

// Computes rows [first, last) of the update of one group from all rows of multiply_right's result. Returns these rows'
// part of the inner products.
Products multiply_left(const KroneckerLayer& layer, int64_t group, int64_t first, int64_t last, const float* right) {
  const int64_t stride = layer.width();
  const int64_t weights = group * layer.rows * layer.columns, biases = group * layer.rows;
  const float scale = layer.scale ? layer.scale[group] : 1.0f;
  int64_t offset = 0;
  for (const DiagonalBlock& block : layer.left) {
    const int64_t from = std::max(offset, first), to = std::min(offset + block.size, last);
    if (from < to) {
      const float* values = block.values + group * block.size * block.size + (from - offset) * block.size;
      const float* rows = right + offset * stride;
      blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, to - from, layer.columns, block.size, scale, values,
                  block.size, rows, stride, 0.0f, layer.weight_update + weights + from * layer.columns, layer.columns);
      if (layer.bias_gradient)
        blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, to - from, 1, block.size, scale, values, block.size,
                    rows + layer.columns, stride, 0.0f, layer.bias_update + biases + from, 1);
    }
    offset += block.size;
  }
  Products products;
  products.add_rows(layer, group, first, last);
  return products;
}

// Runs on the calling thread. Holds the intermediate result of one group at a time.
void precondition_alone(const KroneckerLayer& layer) {
  thread_local std::vector<float> scratch;
  const size_t size = layer.rows * layer.width();
  if (scratch.size() < size) scratch.resize(size);
  Products total;
  for (int64_t group = 0; group < layer.groups; ++group) {
    multiply_right(layer, group, 0, layer.rows, scratch.data());
    const Products products = multiply_left(layer, group, 0, layer.rows, scratch.data());
    total.weight += products.weight;
    total.bias += products.bias;
  }
  total.keep(layer);
}

// Runs on all threads. The rows are split into one part per thread.
void precondition_together(const KroneckerLayer& layer) {
  const int64_t parts = std::min<int64_t>(threads(), layer.rows);
  const int64_t size = layer.rows * layer.width();
  std::vector<float> scratch(layer.groups * size);
  std::vector<Products> shares(layer.groups * parts);
  const auto first = [&](int64_t part) { return layer.rows * part / parts; };
  parallel_for(layer.groups * parts, [&](int64_t task) {
    const int64_t group = task / parts, part = task % parts;
    multiply_right(layer, group, first(part), first(part + 1), scratch.data() + group * size);
  });
  parallel_for(layer.groups * parts, [&](int64_t task) {
    const int64_t group = task / parts, part = task % parts;
    shares[task] = multiply_left(layer, group, first(part), first(part + 1), scratch.data() + group * size);
  });
  Products total;
  for (const Products& share : shares) {
    total.weight += share.weight;
    total.bias += share.bias;
  }
  total.keep(layer);
}

}  // namespace

void precondition(const std::vector<KroneckerLayer>& layers) {
  std::vector<double> costs;
  for (const KroneckerLayer& layer : layers) costs.push_back(cost(layer));
  run_uneven(
      costs, [&](int64_t index) { precondition_together(layers[index]); },
      [&](int64_t index) { precondition_alone(layers[index]); });
}

}  // namespace ms_kfac
