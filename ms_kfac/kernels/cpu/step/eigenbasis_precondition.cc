// EKFAC.
#include "eigenbasis_precondition.h"

#include <algorithm>

#include "../../interface/factored_tikhonov.h"
#include "../linalg/blas.h"
#include "../threads/multiversion.h"
#include "../threads/threads.h"
#include "../threads/uneven_tasks.h"
#include "gradient_matrix.h"
#include "gradient_products.h"

namespace ms_kfac {
namespace {

double cost(const EigenbasisLayer& layer) {
  return static_cast<double>(layer.groups) * layer.rows * layer.width() * (layer.rows + layer.width());
}

MS_KFAC_CLONES
void divide_by_moments(float* __restrict values, const float* __restrict sums, float weight, float damping,
                       int64_t size) {
  for (int64_t i = 0; i < size; ++i) values[i] /= sums[i] * weight + damping;
}

MS_KFAC_CLONES
void divide_by_eigenvalues(float* __restrict values, float S_G, const float* __restrict S_A, float damping,
                           int64_t size) {
  for (int64_t i = 0; i < size; ++i) values[i] /= S_G * S_A[i] + damping;
}

void divide(const EigenbasisLayer& layer, int64_t group, float* values) {
  const int64_t width = layer.width(), size = layer.rows * width;
  if (layer.count != 0.0f) {
    divide_by_moments(values, layer.moments + group * size, 1.0f / std::max(layer.count, kSmallestCount), layer.damping,
                      size);
    return;
  }
  for (int64_t row = 0; row < layer.rows; ++row)
    divide_by_eigenvalues(values + row * width, layer.S_G[group * layer.rows + row], layer.S_A + group * width,
                          layer.damping, width);
}

void precondition_layer(const EigenbasisLayer& layer) {
  thread_local std::vector<float> scratch;
  const int rows = static_cast<int>(layer.rows), width = static_cast<int>(layer.width());
  const size_t size = static_cast<size_t>(rows) * width;
  if (scratch.size() < 2 * size) scratch.resize(2 * size);
  float *matrix = scratch.data(), *other = matrix + size;
  // other <- op(Q_G) matrix, matrix <- other op(Q_A)
  const auto rotate = [&](const float* Q_G, const float* Q_A, blas::Transpose left, blas::Transpose right) {
    blas::sgemm(blas::kRowMajor, left, blas::kNo, rows, width, rows, 1.0f, Q_G, rows, matrix, width, 0.0f, other,
                width);
    blas::sgemm(blas::kRowMajor, blas::kNo, right, rows, width, width, 1.0f, other, width, Q_A, width, 0.0f, matrix,
                width);
  };
  Products products;
  for (int64_t group = 0; group < layer.groups; ++group) {
    const float *Q_G = layer.Q_G + group * rows * rows, *Q_A = layer.Q_A + group * width * width;
    join(layer, group, matrix);
    rotate(Q_G, Q_A, blas::kYes, blas::kNo);
    divide(layer, group, matrix);
    rotate(Q_G, Q_A, blas::kNo, blas::kYes);
    split(layer, group, matrix);
    products.add_rows(layer, group, 0, rows);
  }
  products.keep(layer);
}

}  // namespace

void precondition(const std::vector<EigenbasisLayer>& layers) {
  std::vector<double> costs;
  for (const EigenbasisLayer& layer : layers) costs.push_back(cost(layer));
  const auto large = [&](int64_t index) {
    const blas::Threads guard(threads());
    precondition_layer(layers[index]);
  };
  run_uneven(costs, large, [&](int64_t index) { precondition_layer(layers[index]); });
}

}  // namespace ms_kfac
