// Compares SKFAC's U = G^-1 [dW db] A^-1 and its inner products with loops in float64: solvers of all ranks, groups,
// biases, and layers of very different sizes.

#include <algorithm>

#include "gradients.h"
#include "step/skfac_precondition.h"

namespace {

using check::Matrix;

struct Case {
  int64_t groups, rows, columns;
  bool bias;
  int64_t rank_A, rank_G;
};

struct Side {
  // Only the rows below the rank may be read.
  Side(ms_kfac::Solver& solver, int64_t groups, int size, int rank, unsigned seed)
      : matrices(check::normal(groups * size * size, seed)), damping(check::normal(groups, seed + 1)) {
    for (int64_t group = 0; group < groups; ++group)
      std::fill(matrices.begin() + (group * size + rank) * size, matrices.begin() + (group + 1) * size * size, NAN);
    for (float& value : damping) value = 0.3f + std::fabs(value);
    solver = {matrices.data(), damping.data(), size, rank};
  }

  // The inverse of one group.
  Matrix inverse(const ms_kfac::Solver& solver, int64_t group) const {
    const int64_t size = solver.size, rank = solver.rank;
    const auto begin = matrices.begin() + group * size * size;
    const Matrix Z(begin, begin + rank * size);
    if (rank == size) return Z;
    Matrix result = check::multiply(check::transposed(Z, rank, size), Z, size, rank, size);
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j)
        result[i * size + j] = ((i == j ? 1.0 : 0.0) - result[i * size + j]) / damping[group];
    return result;
  }

  std::vector<float> matrices, damping;
};

struct Layer {
  Layer(const Case& wanted, unsigned seed)
      : layer{},
        A(layer.A, wanted.groups, wanted.columns + (wanted.bias ? 1 : 0), wanted.rank_A, seed + 1),
        G(layer.G, wanted.groups, wanted.rows, wanted.rank_G, seed + 3) {
    gradients.attach(layer, wanted.groups, wanted.rows, wanted.columns, wanted.bias, seed + 5);
  }

  void verify() const {
    const int64_t rows = layer.rows, width = layer.width();
    std::vector<Matrix> expected;
    for (int64_t group = 0; group < layer.groups; ++group) {
      const Matrix left = check::multiply(G.inverse(layer.G, group), gradients.of(layer, group), rows, rows, width);
      expected.push_back(check::multiply(left, A.inverse(layer.A, group), rows, width, width));
    }
    gradients.verify(layer, expected);
  }

  ms_kfac::SKFACLayer layer;
  check::Gradients gradients;
  Side A, G;
};

}  // namespace

int main(int argc, char** argv) {
  return check::run_cases<Layer>(argc, argv,
                                 std::vector<Case>{{1, 4, 5, false, 2, 3},
                                                   {1, 4, 5, true, 6, 4},
                                                   {1, 4, 5, true, 0, 0},
                                                   {3, 2, 9, true, 4, 2},
                                                   {5, 1, 9, false, 9, 0},
                                                   {1, 1, 1, true, 1, 1},
                                                   {1, 40, 70, false, 8, 40}});
}
