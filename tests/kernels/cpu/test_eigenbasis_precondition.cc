// Compares U = Q_G [(Q_G^T [dW db] Q_A) / (s + damping)] Q_A^T and its inner products with loops in float64: groups,
// biases, measured moments, eigenvalues instead of moments, and layers of very different sizes.

#include "check.h"
#include "step/eigenbasis_precondition.h"

namespace {

using Matrix = std::vector<double>;

// Product of a of shape (rows, inner) and b of shape (inner, columns), each possibly transposed.
Matrix multiply(const Matrix& a, bool a_transposed, const Matrix& b, bool b_transposed, int64_t rows, int64_t inner,
                int64_t columns) {
  Matrix product(rows * columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < inner; ++k)
      for (int64_t j = 0; j < columns; ++j)
        product[i * columns + j] += (a_transposed ? a[k * rows + i] : a[i * inner + k]) *
                                    (b_transposed ? b[j * inner + k] : b[k * columns + j]);
  return product;
}

struct Case {
  int64_t groups, rows, columns;
  bool bias, measured;
};

struct Layer {
  Layer(const Case& wanted, unsigned seed) : layer{} {
    layer.groups = wanted.groups;
    layer.rows = wanted.rows;
    layer.columns = wanted.columns;
    const int64_t width = wanted.columns + (wanted.bias ? 1 : 0), biases = wanted.groups * wanted.rows;
    Q_A = check::normal(wanted.groups * width * width, seed + 1);
    Q_G = check::normal(biases * wanted.rows, seed + 2);
    S_A = positive(wanted.groups * width, seed + 3);
    S_G = positive(biases, seed + 4);
    moments = positive(biases * width, seed + 5);
    dW = check::normal(biases * wanted.columns, seed + 6);
    db = check::normal(biases, seed + 7);
    U_W.assign(dW.size(), NAN);
    U_b.assign(biases, NAN);
    layer.Q_A = Q_A.data();
    layer.Q_G = Q_G.data();
    layer.moments = moments.data();
    layer.count = wanted.measured ? 3.0f : 0.0f;
    layer.S_A = S_A.data();
    layer.S_G = S_G.data();
    layer.damping = 0.3f;
    layer.weight_gradient = dW.data();
    layer.weight_update = U_W.data();
    layer.weight_product = &products[0];
    if (wanted.bias) {
      layer.bias_gradient = db.data();
      layer.bias_update = U_b.data();
      layer.bias_product = &products[1];
    }
  }

  static std::vector<float> positive(size_t count, unsigned seed) {
    std::vector<float> values = check::normal(count, seed);
    for (float& value : values) value = 0.2f + std::fabs(value);
    return values;
  }

  void verify() const {
    const int64_t rows = layer.rows, columns = layer.columns, width = layer.width();
    std::vector<double> expected_W, expected_b, expected_products(2);
    double magnitude = 0;
    for (int64_t group = 0; group < layer.groups; ++group) {
      const Matrix A(Q_A.begin() + group * width * width, Q_A.begin() + (group + 1) * width * width);
      const Matrix G(Q_G.begin() + group * rows * rows, Q_G.begin() + (group + 1) * rows * rows);
      Matrix joined;
      for (int64_t i = group * rows; i < (group + 1) * rows; ++i) {
        joined.insert(joined.end(), dW.begin() + i * columns, dW.begin() + (i + 1) * columns);
        if (layer.bias_gradient) joined.push_back(db[i]);
      }
      Matrix rotated =
          multiply(multiply(G, true, joined, false, rows, rows, width), false, A, false, rows, width, width);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < width; ++j) {
          const int64_t place = i * width + j;
          const double s = layer.count > 0 ? moments[group * rows * width + place] / static_cast<double>(layer.count)
                                           : static_cast<double>(S_G[group * rows + i]) * S_A[group * width + j];
          rotated[place] /= s + layer.damping;
        }
      const Matrix U =
          multiply(multiply(G, false, rotated, false, rows, rows, width), false, A, true, rows, width, width);
      for (int64_t place = 0; place < rows * width; ++place) {
        const bool weight = place % width < columns;
        (weight ? expected_W : expected_b).push_back(U[place]);
        expected_products[weight ? 0 : 1] += U[place] * joined[place];
        magnitude += std::fabs(U[place] * joined[place]);
      }
    }
    // Four consecutive products in float32. Rounding grows with the square root of the length of their sums.
    check::close("U_W", U_W.data(), expected_W, 1e-5);
    if (layer.bias_gradient) check::close("U_b", U_b.data(), expected_b, 1e-5);
    for (int part = 0; part <= (layer.bias_gradient ? 1 : 0); ++part)
      if (!(std::fabs(products[part] - expected_products[part]) <= 1e-5 * magnitude)) {
        std::fprintf(stderr, "inner product %g, expected %g\n", products[part], expected_products[part]);
        std::exit(1);
      }
  }

  ms_kfac::EigenbasisLayer layer;
  std::vector<float> Q_A, Q_G, S_A, S_G, moments, dW, db, U_W, U_b;
  float products[2] = {NAN, NAN};
};

void run(const std::vector<Case>& cases) {
  std::vector<Layer> layers;
  layers.reserve(cases.size());
  std::vector<ms_kfac::EigenbasisLayer> tasks;
  for (const Case& wanted : cases) {
    layers.emplace_back(wanted, static_cast<unsigned>(layers.size() + 1) * 1000);
    tasks.push_back(layers.back().layer);
  }
  ms_kfac::precondition(tasks);
  for (const Layer& layer : layers) layer.verify();
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  const std::vector<Case> cases = {{1, 4, 5, false, true},  {1, 4, 5, true, false}, {3, 2, 9, true, true},
                                   {5, 1, 9, false, false}, {1, 1, 1, true, true},  {1, 40, 70, false, true}};
  run({});
  for (const Case& wanted : cases) run({wanted});
  run(cases);
  ms_kfac::set_threads(1);
  run(cases);
}
