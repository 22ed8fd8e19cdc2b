// Compares U = Q_G [(Q_G^T [dW db] Q_A) / (s + damping)] Q_A^T and its inner products with loops in float64: groups,
// biases, measured moments, eigenvalues instead of moments, and layers of very different sizes.

#include "gradients.h"
#include "step/eigenbasis_precondition.h"

namespace {

using check::Matrix;

struct Case {
  int64_t groups, rows, columns;
  bool bias, measured;
};

struct Layer {
  Layer(const Case& wanted, unsigned seed) : layer{} {
    gradients.attach(layer, wanted.groups, wanted.rows, wanted.columns, wanted.bias, seed + 6);
    const int64_t width = layer.width(), biases = wanted.groups * wanted.rows;
    Q_A = check::normal(wanted.groups * width * width, seed + 1);
    Q_G = check::normal(biases * wanted.rows, seed + 2);
    S_A = positive(wanted.groups * width, seed + 3);
    S_G = positive(biases, seed + 4);
    moments = positive(biases * width, seed + 5);
    layer.Q_A = Q_A.data();
    layer.Q_G = Q_G.data();
    layer.moments = moments.data();
    layer.count = wanted.measured ? 3.0f : 0.0f;
    layer.S_A = S_A.data();
    layer.S_G = S_G.data();
    layer.damping = 0.3f;
  }

  static std::vector<float> positive(size_t count, unsigned seed) {
    std::vector<float> values = check::normal(count, seed);
    for (float& value : values) value = 0.2f + std::fabs(value);
    return values;
  }

  // left matrix right
  Matrix between(const Matrix& left, const Matrix& matrix, const Matrix& right) const {
    const int64_t rows = layer.rows, width = layer.width();
    return check::multiply(check::multiply(left, matrix, rows, rows, width), right, rows, width, width);
  }

  void verify() const {
    const int64_t rows = layer.rows, width = layer.width();
    std::vector<Matrix> expected;
    for (int64_t group = 0; group < layer.groups; ++group) {
      const Matrix A(Q_A.begin() + group * width * width, Q_A.begin() + (group + 1) * width * width);
      const Matrix G(Q_G.begin() + group * rows * rows, Q_G.begin() + (group + 1) * rows * rows);
      Matrix rotated = between(check::transposed(G, rows, rows), gradients.of(layer, group), A);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < width; ++j) {
          const int64_t place = i * width + j;
          const double s = layer.count > 0 ? moments[group * rows * width + place] / static_cast<double>(layer.count)
                                           : static_cast<double>(S_G[group * rows + i]) * S_A[group * width + j];
          rotated[place] /= s + layer.damping;
        }
      expected.push_back(between(G, rotated, check::transposed(A, width, width)));
    }
    gradients.verify(layer, expected);
  }

  ms_kfac::EigenbasisLayer layer;
  check::Gradients gradients;
  std::vector<float> Q_A, Q_G, S_A, S_G, moments;
};

}  // namespace

int main(int argc, char** argv) {
  return check::run_cases<Layer>(argc, argv,
                                 std::vector<Case>{{1, 4, 5, false, true},
                                                   {1, 4, 5, true, false},
                                                   {3, 2, 9, true, true},
                                                   {5, 1, 9, false, false},
                                                   {1, 1, 1, true, true},
                                                   {1, 40, 70, false, true}});
}
