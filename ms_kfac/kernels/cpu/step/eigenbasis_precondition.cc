// EKFAC.
#include "eigenbasis_precondition.h"

#include <algorithm>

#include "../../interface/factored_tikhonov.h"
#include "../threads/multiversion.h"
#include "joined_gradient.h"

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

void precondition_group(const EigenbasisLayer& layer, int64_t group, JoinedGradient& gradient) {
  const int rows = gradient.rows, width = gradient.width;
  float *matrix = gradient.matrix, *other = gradient.other;
  const float *Q_G = layer.Q_G + group * rows * rows, *Q_A = layer.Q_A + group * width * width;
  // other <- op(Q_G) matrix, matrix <- other op(Q_A)
  const auto rotate = [&](blas::Transpose left, blas::Transpose right) {
    blas::sgemm(blas::kRowMajor, left, blas::kNo, rows, width, rows, 1.0f, Q_G, rows, matrix, width, 0.0f, other,
                width);
    blas::sgemm(blas::kRowMajor, blas::kNo, right, rows, width, width, 1.0f, other, width, Q_A, width, 0.0f, matrix,
                width);
  };
  rotate(blas::kYes, blas::kNo);
  divide(layer, group, matrix);
  rotate(blas::kNo, blas::kYes);
}

}  // namespace

void precondition(const std::vector<EigenbasisLayer>& layers) { precondition_joined(layers, cost, precondition_group); }

}  // namespace ms_kfac
