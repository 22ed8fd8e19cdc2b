// Compares U = scale G^-1 [dW db] A^-1 and its inner products with loops in float64: groups, biases, diagonal blocks,
// and layers of very different sizes. All threads together process some of these.

#include "check.h"
#include "step/kronecker_precondition.h"

namespace {

using Matrix = std::vector<double>;

// The block-diagonal matrix of one group.
Matrix dense(const std::vector<ms_kfac::DiagonalBlock>& blocks, int64_t group, int64_t dimension) {
  Matrix whole(dimension * dimension);
  int64_t offset = 0;
  for (const ms_kfac::DiagonalBlock& block : blocks) {
    for (int64_t i = 0; i < block.size; ++i)
      for (int64_t j = 0; j < block.size; ++j)
        whole[(offset + i) * dimension + offset + j] = block.values[(group * block.size + i) * block.size + j];
    offset += block.size;
  }
  return whole;
}

Matrix multiply(const Matrix& a, const Matrix& b, int64_t rows, int64_t inner, int64_t columns) {
  Matrix product(rows * columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < inner; ++k)
      for (int64_t j = 0; j < columns; ++j) product[i * columns + j] += a[i * inner + k] * b[k * columns + j];
  return product;
}

struct Case {
  int64_t groups;
  std::vector<int64_t> left, right;
  bool bias, scaled;
};

struct Layer {
  explicit Layer(const Case& wanted, unsigned seed) : layer{} {
    layer.groups = wanted.groups;
    for (int64_t size : wanted.left) layer.rows += size;
    for (int64_t size : wanted.right) layer.columns += size;
    if (wanted.bias) --layer.columns;
    const int64_t weights = layer.groups * layer.rows * layer.columns, biases = layer.groups * layer.rows;
    blocks.reserve(wanted.left.size() + wanted.right.size());
    const auto make = [&](const std::vector<int64_t>& sizes, std::vector<ms_kfac::DiagonalBlock>& side) {
      for (int64_t size : sizes) {
        blocks.push_back(check::normal(layer.groups * size * size, ++seed * 7));
        side.push_back({blocks.back().data(), size});
      }
    };
    make(wanted.left, layer.left);
    make(wanted.right, layer.right);
    dW = check::normal(weights, seed + 100);
    db = check::normal(biases, seed + 200);
    scale = check::normal(layer.groups, seed + 300);
    U_W.assign(weights, NAN);
    U_b.assign(biases, NAN);
    layer.weight_gradient = dW.data();
    layer.weight_update = U_W.data();
    layer.weight_product = &products[0];
    if (wanted.scaled) layer.scale = scale.data();
    if (wanted.bias) {
      layer.bias_gradient = db.data();
      layer.bias_update = U_b.data();
      layer.bias_product = &products[1];
    }
  }

  void verify() const {
    const int64_t rows = layer.rows, columns = layer.columns, bias = layer.bias_gradient ? 1 : 0;
    std::vector<double> expected_W, expected_b, expected_products(2);
    double magnitude = 0;
    for (int64_t group = 0; group < layer.groups; ++group) {
      Matrix joined;
      for (int64_t i = 0; i < rows; ++i) {
        const float* row = dW.data() + (group * rows + i) * columns;
        joined.insert(joined.end(), row, row + columns);
        if (bias) joined.push_back(db[group * rows + i]);
      }
      const Matrix G = dense(layer.left, group, rows), A = dense(layer.right, group, columns + bias);
      Matrix U = multiply(multiply(G, joined, rows, rows, columns + bias), A, rows, columns + bias, columns + bias);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns + bias; ++j) {
          double& value = U[i * (columns + bias) + j];
          if (layer.scale) value *= layer.scale[group];
          (j < columns ? expected_W : expected_b).push_back(value);
          expected_products[j < columns ? 0 : 1] += value * joined[i * (columns + bias) + j];
          magnitude += std::fabs(value * joined[i * (columns + bias) + j]);
        }
    }
    // Sums of float32 products. Rounding grows with the square root of their number, and stays far below 1e-5 of the
    // largest entry.
    check::close("U_W", U_W.data(), expected_W, 1e-5);
    if (bias) check::close("U_b", U_b.data(), expected_b, 1e-5);
    for (int64_t part = 0; part <= bias; ++part)
      // An inner product may cancel, so its error is compared with the sum of magnitudes.
      if (!(std::fabs(products[part] - expected_products[part]) <= 1e-5 * magnitude)) {
        std::fprintf(stderr, "inner product %g, expected %g\n", products[part], expected_products[part]);
        std::exit(1);
      }
  }

  ms_kfac::KroneckerLayer layer;
  std::vector<std::vector<float>> blocks;
  std::vector<float> dW, db, scale, U_W, U_b;
  float products[2] = {NAN, NAN};
};

void run(const std::vector<Case>& cases) {
  std::vector<Layer> layers;
  layers.reserve(cases.size());
  std::vector<ms_kfac::KroneckerLayer> tasks;
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
  const std::vector<Case> cases = {
      {1, {4}, {5}, false, false},
      {1, {4}, {6}, true, false},
      {1, {1}, {2}, true, true},
      {3, {2}, {9}, false, true},
      {5, {1}, {10}, true, false},
      {1, {64}, {144}, false, false},
      {1, {8, 8, 3}, {8, 8, 8, 5}, true, false},
      // The last block contains only the bias.
      {1, {7}, {4, 4, 1}, true, false},
      {1, {4, 4}, {6, 6}, false, false},
  };
  run({});
  for (const Case& wanted : cases) run({wanted});
  run(cases);
  ms_kfac::set_threads(1);
  run(cases);
}
