// SKFAC.
#include "skfac_precondition.h"

#include <utility>

#include "../linalg/blas.h"
#include "../threads/threads.h"
#include "../threads/uneven_tasks.h"
#include "gradient_matrix.h"
#include "gradient_products.h"

namespace ms_kfac {
namespace {

double cost(const Solver& solver) {
  return solver.low() ? 2.0 * solver.rank * solver.size : 1.0 * solver.size * solver.size;
}

double cost(const SKFACLayer& layer) {
  return layer.groups * (layer.rows * cost(layer.A) + layer.width() * cost(layer.G));
}

// The gradient of one group, and a second matrix of its size.
struct Pair {
  int rows, width;
  float *matrix, *other;

  // matrix <- matrix A^-1
  void multiply_right(const Solver& A, int64_t group) {
    const float* solver = A.matrices + group * width * width;
    const float scale = 1.0f / A.damping[group];
    const int rank = static_cast<int>(A.rank);
    if (!A.low()) {
      blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rows, width, width, 1.0f, matrix, width, solver, width, 0.0f,
                  other, width);
      std::swap(matrix, other);
    } else if (rank == 0) {
      scale_matrix(scale);
    } else {
      blas::sgemm(blas::kRowMajor, blas::kNo, blas::kYes, rows, rank, width, 1.0f, matrix, width, solver, width, 0.0f,
                  other, rank);
      blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rows, width, rank, -scale, other, rank, solver, width, scale,
                  matrix, width);
    }
  }

  // matrix <- G^-1 matrix
  void multiply_left(const Solver& G, int64_t group) {
    const float* solver = G.matrices + group * rows * rows;
    const float scale = 1.0f / G.damping[group];
    const int rank = static_cast<int>(G.rank);
    if (!G.low()) {
      blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rows, width, rows, 1.0f, solver, rows, matrix, width, 0.0f,
                  other, width);
      std::swap(matrix, other);
    } else if (rank == 0) {
      scale_matrix(scale);
    } else {
      blas::sgemm(blas::kRowMajor, blas::kNo, blas::kNo, rank, width, rows, 1.0f, solver, rows, matrix, width, 0.0f,
                  other, width);
      blas::sgemm(blas::kRowMajor, blas::kYes, blas::kNo, rows, width, rank, -scale, solver, rows, other, width, scale,
                  matrix, width);
    }
  }

  void scale_matrix(float scale) {
    for (int64_t i = 0; i < int64_t{rows} * width; ++i) matrix[i] *= scale;
  }
};

void precondition_layer(const SKFACLayer& layer) {
  thread_local std::vector<float> scratch;
  const int rows = static_cast<int>(layer.rows), width = static_cast<int>(layer.width());
  const size_t size = static_cast<size_t>(rows) * width;
  if (scratch.size() < 2 * size) scratch.resize(2 * size);
  Products products;
  for (int64_t group = 0; group < layer.groups; ++group) {
    Pair pair{rows, width, scratch.data(), scratch.data() + size};
    join(layer, group, pair.matrix);
    pair.multiply_right(layer.A, group);
    pair.multiply_left(layer.G, group);
    split(layer, group, pair.matrix);
    products.add_rows(layer, group, 0, rows);
  }
  products.keep(layer);
}

}  // namespace

void precondition(const std::vector<SKFACLayer>& layers) {
  std::vector<double> costs;
  for (const SKFACLayer& layer : layers) costs.push_back(cost(layer));
  const auto large = [&](int64_t index) {
    const blas::Threads guard(threads());
    precondition_layer(layers[index]);
  };
  run_uneven(costs, large, [&](int64_t index) { precondition_layer(layers[index]); });
}

}  // namespace ms_kfac
