// The tests of preconditioning: random gradients of a layer, and a comparison of the updates with float64.
#pragma once

#include <cstdint>

#include "../interface/layer_gradients.h"
#include "check.h"

namespace check {

using Matrix = std::vector<double>;

inline Matrix transposed(const Matrix& a, int64_t rows, int64_t columns) {
  Matrix result(a.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) result[j * rows + i] = a[i * columns + j];
  return result;
}

// Product of a (rows, inner) and b (inner, columns).
inline Matrix multiply(const Matrix& a, const Matrix& b, int64_t rows, int64_t inner, int64_t columns) {
  Matrix product(rows * columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < inner; ++k)
      for (int64_t j = 0; j < columns; ++j) product[i * columns + j] += a[i * inner + k] * b[k * columns + j];
  return product;
}

class Gradients {
 public:
  // Sets the layer's sizes and its pointers, which stay valid while this object is not moved.
  void attach(ms_kfac::LayerGradients& layer, int64_t groups, int64_t rows, int64_t columns, bool bias, unsigned seed) {
    layer.groups = groups;
    layer.rows = rows;
    layer.columns = columns;
    dW_ = normal(groups * rows * columns, seed);
    db_ = normal(groups * rows, seed + 100);
    U_W_.assign(dW_.size(), NAN);
    U_b_.assign(db_.size(), NAN);
    layer.weight_gradient = dW_.data();
    layer.weight_update = U_W_.data();
    layer.weight_product = &products_[0];
    if (!bias) return;
    layer.bias_gradient = db_.data();
    layer.bias_update = U_b_.data();
    layer.bias_product = &products_[1];
  }

  // [dW db] of one group.
  Matrix of(const ms_kfac::LayerGradients& layer, int64_t group) const {
    Matrix joined;
    for (int64_t i = group * layer.rows; i < (group + 1) * layer.rows; ++i) {
      joined.insert(joined.end(), dW_.begin() + i * layer.columns, dW_.begin() + (i + 1) * layer.columns);
      if (layer.bias_gradient) joined.push_back(db_[i]);
    }
    return joined;
  }

  // Ends the program unless updates and inner products are those of U, one matrix per group. Sums of float32 products:
  // rounding grows with the square root of their number, and stays far below 1e-5 of the largest entry.
  void verify(const ms_kfac::LayerGradients& layer, const std::vector<Matrix>& U) const {
    std::vector<double> expected_W, expected_b, expected_products(2);
    double magnitude = 0;
    for (int64_t group = 0; group < layer.groups; ++group) {
      const Matrix joined = of(layer, group);
      for (size_t place = 0; place < joined.size(); ++place) {
        const bool weight = static_cast<int64_t>(place) % layer.width() < layer.columns;
        const double value = U[group][place];
        (weight ? expected_W : expected_b).push_back(value);
        expected_products[weight ? 0 : 1] += value * joined[place];
        magnitude += std::fabs(value * joined[place]);
      }
    }
    close("U_W", U_W_.data(), expected_W, 1e-5);
    if (layer.bias_gradient) close("U_b", U_b_.data(), expected_b, 1e-5);
    for (int part = 0; part <= (layer.bias_gradient ? 1 : 0); ++part)
      // An inner product may cancel, so its error is compared with the sum of magnitudes.
      if (!(std::fabs(products_[part] - expected_products[part]) <= 1e-5 * magnitude)) {
        std::fprintf(stderr, "inner product %g, expected %g\n", products_[part], expected_products[part]);
        std::exit(1);
      }
  }

 private:
  std::vector<float> dW_, db_, U_W_, U_b_;
  float products_[2] = {NAN, NAN};
};

// Preconditions the layers of the cases in one call. A Layer is made of a case and a seed, and has `layer` and
// verify().
template <typename Layer, typename Case>
void precondition_all(const std::vector<Case>& cases) {
  std::vector<Layer> layers;
  layers.reserve(cases.size());
  std::vector<decltype(Layer::layer)> tasks;
  for (const Case& wanted : cases) {
    layers.emplace_back(wanted, static_cast<unsigned>(layers.size() + 1) * 1000);
    tasks.push_back(layers.back().layer);
  }
  precondition(tasks);  // Of the tasks' namespace.
  for (const Layer& layer : layers) layer.verify();
}

// Each case alone, all together, and all with one thread.
template <typename Layer, typename Case>
int run_cases(int argc, char** argv, const std::vector<Case>& cases) {
  start(argc, argv);
  precondition_all<Layer, Case>({});
  for (const Case& wanted : cases) precondition_all<Layer, Case>({wanted});
  precondition_all<Layer>(cases);
  ms_kfac::set_threads(1);
  precondition_all<Layer>(cases);
  return 0;
}

}  // namespace check
