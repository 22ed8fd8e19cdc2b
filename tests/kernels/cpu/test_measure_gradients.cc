// Compares the measurements of gradients and weights of any shape with plain loops in float64.

#include "../../../ms_kfac/kernels/interface/signs.h"
#include "check.h"
#include "statistics/measure_gradients.h"

namespace {

using namespace ms_kfac;

// Sums in double, rounded once. The errors are relative to the largest of a layer's three numbers.
constexpr double kTolerance = 1e-6;

struct Arrays {
  std::vector<float> gradient, bias_gradient, weight, bias;
};

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  struct Shape {
    int64_t rows, columns, taps, biases;
  };
  // The last one is a normalization over three axes.
  const std::vector<Shape> shapes = {{1, 1, 1, 0},    {5, 7, 1, 5},     {64, 3, 49, 64}, {300, 1, 9, 300},
                                     {70, 700, 3, 0}, {2, 70000, 1, 2}, {4, 5, 6, 120}};
  std::vector<Arrays> arrays;
  std::vector<MeasuredLayer> layers;
  std::vector<double> expected;
  for (const auto& [rows, columns, taps, biases] : shapes) {
    const int64_t size = rows * columns * taps;
    arrays.push_back(
        {check::normal(size, 1), check::normal(biases, 2), check::normal(size, 3), check::normal(biases, 4)});
    const Arrays& a = arrays.back();
    layers.push_back(
        {a.gradient.data(), a.bias_gradient.data(), a.weight.data(), a.bias.data(), rows, columns, taps, biases});
    double gradient = 0, weight = 0, squares = 0;
    for (int64_t o = 0; o < rows; ++o)
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t index = (o * columns + c) * taps + k;
          const double s = sign(kRows, o) * sign(kColumns, c) * sign(kTaps, k);
          gradient += s * a.gradient[index];
          weight += s * a.weight[index];
          squares += static_cast<double>(a.gradient[index]) * a.gradient[index];
        }
    for (int64_t o = 0; o < biases; ++o) {
      gradient += sign(kRows, o) * a.bias_gradient[o];
      weight += sign(kRows, o) * a.bias[o];
      squares += static_cast<double>(a.bias_gradient[o]) * a.bias_gradient[o];
    }
    expected.insert(expected.end(), {gradient, weight, std::sqrt(squares)});
  }
  std::vector<float> found(3 * layers.size());
  measure_gradients(layers, found.data());
  for (size_t index = 0; index < layers.size(); ++index)
    check::close("measured", found.data() + 3 * index,
                 {expected.begin() + 3 * index, expected.begin() + 3 * (index + 1)}, kTolerance);
}
