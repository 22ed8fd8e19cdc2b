// Compares trace-restricted moments of dense layers and convolutions of any shape with plain loops in float64.

#include "check.h"
#include "statistics/trace_restricted_moments.h"

namespace {

using namespace ms_kfac;

// Sums of several hundred positive products in single precision. Their norms and roots are rounded, too.
constexpr double kTolerance = 3e-6;

std::mt19937 generator(12);

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

using Vector = std::vector<double>;

double squared_norm(const Vector& vector) {
  double sum = 0;
  for (double value : vector) sum += value * value;
  return sum;
}

void add_products(Vector& expected, const Vector& vector, double weight) {
  for (size_t i = 0; i < vector.size(); ++i)
    for (size_t j = 0; j < vector.size(); ++j) expected[i * vector.size() + j] += weight * vector[i] * vector[j];
}

// Compares the pairs of vectors of a batch with the kernel's result.
void compare(const char* what, const LayerBatch& batch, const std::vector<std::pair<Vector, Vector>>& pairs) {
  const LayerSide inputs = batch.inputs(0), gradients = batch.gradients(0);
  const size_t d = inputs.features(), e = gradients.features();
  Vector Phi(d * d), Psi(e * e), delta(1);
  for (const auto& [a, g] : pairs) {
    add_products(Phi, a, squared_norm(g));
    add_products(Psi, g, squared_norm(a));
    delta[0] += squared_norm(a) * squared_norm(g);
  }
  std::vector<float> found_Phi(d * d), found_Psi(e * e);
  const auto found = static_cast<float>(add_trace_restricted(inputs, gradients, found_Phi.data(), found_Psi.data(), 3));
  check::close(what, found_Phi.data(), Phi, kTolerance);
  check::close(what, found_Psi.data(), Psi, kTolerance);
  check::close(what, &found, delta, kTolerance);
}

void check_dense(int64_t count, int64_t d, int64_t e) {
  const std::vector<float> x = check::normal(count * d, 1), dout = check::normal(count * e, 2);
  LayerGeometry geometry;
  geometry.bias = pick(0, 1) == 1;
  geometry.gradient_scale = 0.5f;
  geometry.mean_reduction = true;
  std::vector<std::pair<Vector, Vector>> pairs;
  for (int64_t n = 0; n < count; ++n) {
    Vector a(&x[n * d], &x[n * d] + d), g(&dout[n * e], &dout[n * e] + e);
    if (geometry.bias) a.push_back(1.0);
    for (double& value : g) value *= 0.5 * count;
    pairs.emplace_back(a, g);
  }
  const LayerBatch batch(geometry, {x.data(), FloatType::kFloat32, {count, d}},
                         {dout.data(), FloatType::kFloat32, {count, e}});
  compare("dense", batch, pairs);
}

void check_convolution(int64_t samples, int64_t channels, int64_t outputs, int64_t size) {
  LayerGeometry geometry;
  geometry.convolution = true;
  geometry.bias = pick(0, 1) == 1;
  geometry.window = {{3, 2}, {pick(1, 2), 1}, {1, 2}, {1, 0}, {2, 1}};
  const int64_t height = geometry.window.locations(0, size), width = geometry.window.locations(1, size);
  const std::vector<float> x = check::normal(samples * channels * size * size, 3);
  const std::vector<float> dout = check::normal(samples * outputs * height * width, 4);
  std::vector<std::pair<Vector, Vector>> pairs;
  for (int64_t n = 0; n < samples; ++n)
    for (int64_t u = 0; u < height; ++u)
      for (int64_t v = 0; v < width; ++v) {
        Vector a, g;
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t i = 0; i < 3; ++i)
            for (int64_t j = 0; j < 2; ++j) {
              const int64_t row = u * geometry.window.stride[0] + i - 1, column = v + 2 * j;
              const bool inside = row >= 0 && row < size && column < size;
              a.push_back(inside ? x[((n * channels + c) * size + row) * size + column] : 0.0);
            }
        if (geometry.bias) a.push_back(1.0);
        for (int64_t c = 0; c < outputs; ++c) g.push_back(dout[((n * outputs + c) * height + u) * width + v]);
        pairs.emplace_back(a, g);
      }
  const LayerBatch batch(geometry, {x.data(), FloatType::kFloat32, {samples, channels, size, size}},
                         {dout.data(), FloatType::kFloat32, {samples, outputs, height, width}});
  compare("convolution", batch, pairs);
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  for (int index = 0; index < 10; ++index) check_dense(pick(1, 30), pick(1, 20), pick(1, 9));
  check_dense(300, 230, 100);
  // So wide that the threads split the matrices.
  check_dense(4, 1500, 3);
  check_convolution(1, 300, 3, 3);
  for (int index = 0; index < 20; ++index) check_convolution(pick(1, 5), pick(1, 5), pick(1, 5), pick(3, 7));
  check_convolution(4, 12, 70, 9);
  check_convolution(6, 40, 5, 6);
}
