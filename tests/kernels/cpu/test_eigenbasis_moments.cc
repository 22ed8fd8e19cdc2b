// Compares second moments in a Kronecker-factored basis with plain loops in float64, for dense layers and convolutions
// of any shape.

#include "check.h"
#include "statistics/eigenbasis_moments.h"

namespace {

using namespace ms_kfac;

// A coordinate is three nested sums of up to several hundred products in single precision. Measured errors are below
// 2e-6 of the largest second moment.
constexpr double kTolerance = 1e-5;

std::mt19937 generator(17);

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

using Vector = std::vector<double>;
// The two vectors of a location.
using Pair = std::pair<Vector, Vector>;

// The bases need not be orthogonal.
void compare(const char* what, const LayerBatch& batch, const std::vector<std::vector<Pair>>& samples) {
  const LayerSide inputs = batch.inputs(0), gradients = batch.gradients(0);
  const int64_t d = inputs.features(), e = gradients.features();
  const std::vector<float> Q_A = check::normal(d * d, 5), Q_G = check::normal(e * e, 6);
  // The kernel adds to the numbers that are already there.
  std::vector<float> found = check::normal(e * d, 7);
  Vector expected(found.begin(), found.end());
  for (const auto& pairs : samples) {
    Vector coordinates(e * d);
    for (const auto& [a, g] : pairs) {
      Vector in_A(d), in_G(e);
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < d; ++j) in_A[j] += a[i] * Q_A[i * d + j];
      for (int64_t i = 0; i < e; ++i)
        for (int64_t j = 0; j < e; ++j) in_G[j] += g[i] * Q_G[i * e + j];
      for (int64_t i = 0; i < e; ++i)
        for (int64_t j = 0; j < d; ++j) coordinates[i * d + j] += in_G[i] * in_A[j];
    }
    for (int64_t i = 0; i < e * d; ++i) expected[i] += coordinates[i] * coordinates[i];
  }
  add_eigenbasis_moments(inputs, gradients, batch.samples(), Q_A.data(), Q_G.data(), found.data(), 3);
  check::close(what, found.data(), expected, kTolerance);
}

void check_dense(int64_t samples, int64_t locations, int64_t d, int64_t e) {
  const std::vector<float> x = check::normal(samples * locations * d, 1);
  const std::vector<float> dout = check::normal(samples * locations * e, 2);
  LayerGeometry geometry;
  geometry.bias = pick(0, 1) == 1;
  geometry.gradient_scale = 0.5f;
  geometry.mean_reduction = true;
  std::vector<std::vector<Pair>> pairs(samples);
  for (int64_t row = 0; row < samples * locations; ++row) {
    Vector a(&x[row * d], &x[row * d] + d), g(&dout[row * e], &dout[row * e] + e);
    if (geometry.bias) a.push_back(1.0);
    for (double& value : g) value *= 0.5 * samples;
    pairs[row / locations].emplace_back(a, g);
  }
  const LayerBatch batch(geometry, {x.data(), FloatType::kFloat32, {samples, locations, d}},
                         {dout.data(), FloatType::kFloat32, {samples, locations, e}});
  compare("dense", batch, pairs);
}

void check_convolution(int64_t samples, int64_t channels, int64_t outputs, int64_t size) {
  LayerGeometry geometry;
  geometry.convolution = true;
  geometry.bias = pick(0, 1) == 1;
  geometry.window = {{3, 2}, {pick(1, 2), 1}, {1, 2}, {1, 0}, {1, 0}};
  const int64_t height = geometry.window.locations(0, size), width = geometry.window.locations(1, size);
  const std::vector<float> x = check::normal(samples * channels * size * size, 3);
  const std::vector<float> dout = check::normal(samples * outputs * height * width, 4);
  std::vector<std::vector<Pair>> pairs(samples);
  for (int64_t n = 0; n < samples; ++n)
    for (int64_t u = 0; u < height; ++u)
      for (int64_t v = 0; v < width; ++v) {
        Vector a, g;
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t i = 0; i < 3; ++i)
            for (int64_t j = 0; j < 2; ++j) {
              const int64_t row = u * geometry.window.stride[0] + i - 1, column = v + 2 * j;
              const bool inside = row >= 0 && row < size;
              a.push_back(inside ? x[((n * channels + c) * size + row) * size + column] : 0.0);
            }
        if (geometry.bias) a.push_back(1.0);
        for (int64_t c = 0; c < outputs; ++c) g.push_back(dout[((n * outputs + c) * height + u) * width + v]);
        pairs[n].emplace_back(a, g);
      }
  const LayerBatch batch(geometry, {x.data(), FloatType::kFloat32, {samples, channels, size, size}},
                         {dout.data(), FloatType::kFloat32, {samples, outputs, height, width}});
  compare("convolution", batch, pairs);
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  for (int index = 0; index < 10; ++index) check_dense(pick(1, 30), 1, pick(1, 20), pick(1, 9));
  for (int index = 0; index < 20; ++index) check_dense(pick(1, 9), pick(2, 12), pick(1, 20), pick(1, 20));
  // Some samples at a time, on all threads.
  check_dense(2600, 1, 70, 40);
  check_dense(150, 5, 60, 30);
  check_dense(300, 30, 12, 9);
  for (int index = 0; index < 20; ++index) check_convolution(pick(1, 5), pick(1, 5), pick(1, 40), pick(3, 7));
  // The window has a single location.
  check_convolution(40, 9, 20, 3);
  // The patches of a sample are written out in pieces.
  check_convolution(2, 24, 4, 70);
  check_convolution(30, 6, 25, 8);
}
