// SKFAC.
#include "skfac_precondition.h"

#include <utility>

#include "joined_gradient.h"

namespace ms_kfac {
namespace {

double cost(const Solver& solver) {
  return solver.low() ? 2.0 * solver.rank * solver.size : 1.0 * solver.size * solver.size;
}

double cost(const SKFACLayer& layer) {
  return layer.groups * (layer.rows * cost(layer.A) + layer.width() * cost(layer.G));
}

void scale(JoinedGradient& gradient, float factor) {
  for (int64_t i = 0; i < int64_t{gradient.rows} * gradient.width; ++i) gradient.matrix[i] *= factor;
}

// matrix <- matrix A^-1
void multiply_right(JoinedGradient& gradient, const Solver& A, int64_t group) {
  const int rows = gradient.rows, width = gradient.width, rank = A.rank;
  float *matrix = gradient.matrix, *other = gradient.other;
  const float* solver = A.matrices + int64_t{group} * width * width;
  const float factor = 1.0f / A.damping[group];
  if (!A.low()) {
    blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rows, width, width, 1.0f, matrix, width, solver, width, 0.0f,
                other, width);
    std::swap(gradient.matrix, gradient.other);
  } else if (rank == 0) {
    scale(gradient, factor);
  } else {
    blas::sgemm(blas::kRowMajor, blas::kNo, blas::kYes, rows, rank, width, 1.0f, matrix, width, solver, width, 0.0f,
                other, rank);
    blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rows, width, rank, -factor, other, rank, solver, width, factor,
                matrix, width);
  }
}

// matrix <- G^-1 matrix
void multiply_left(JoinedGradient& gradient, const Solver& G, int64_t group) {
  const int rows = gradient.rows, width = gradient.width, rank = G.rank;
  float *matrix = gradient.matrix, *other = gradient.other;
  const float* solver = G.matrices + int64_t{group} * rows * rows;
  const float factor = 1.0f / G.damping[group];
  if (!G.low()) {
    blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rows, width, rows, 1.0f, solver, rows, matrix, width, 0.0f,
                other, width);
    std::swap(gradient.matrix, gradient.other);
  } else if (rank == 0) {
    scale(gradient, factor);
  } else {
    blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rank, width, rows, 1.0f, solver, rows, matrix, width, 0.0f,
                other, width);
    blas::sgemm(blas::kRowMajor, blas::kYes, blas::kNo, rows, width, rank, -factor, solver, rows, other, width, factor,
                matrix, width);
  }
}

}  // namespace

void precondition(const std::vector<SKFACLayer>& layers) {
  const auto cost_of = [](const SKFACLayer& layer) { return cost(layer); };
  precondition_joined(layers, cost_of, [](const SKFACLayer& layer, int64_t group, JoinedGradient& gradient) {
    multiply_right(gradient, layer.A, group);
    multiply_left(gradient, layer.G, group);
  });
}

}  // namespace ms_kfac
