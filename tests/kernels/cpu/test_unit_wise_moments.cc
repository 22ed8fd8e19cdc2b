// Compares the sums of a normalization layer's unit-wise Fisher with plain loops in float64.

#include <algorithm>

#include "check.h"
#include "statistics/unit_wise_moments.h"

namespace {

using namespace ms_kfac;

// Sums over up to 100 positions of numbers of order 1 in float32, squared.
constexpr double kTolerance = 2e-6;

NormalizationGeometry layer(SharedMoments moments, std::vector<int64_t> shape, bool channels_last, int64_t groups = 1) {
  NormalizationGeometry geometry;
  geometry.moments = moments;
  geometry.shape = std::move(shape);
  geometry.channels_last = channels_last;
  geometry.channel_groups = groups;
  geometry.epsilon = 1e-3f;
  geometry.bias = true;
  geometry.gradient_scale = 0.5f;
  return geometry;
}

void test(const char* name, const NormalizationGeometry& geometry, const std::vector<int64_t>& shape) {
  const NormalizationBatch of = batch_of(geometry, shape, shape);
  const int64_t C = of.channels, T = of.locations, of_group = C / geometry.channel_groups;
  std::vector<float> x = check::normal(of.size(), 3), dout = check::normal(of.size(), 5);
  for (float& value : x) value += 2.0f;
  const auto place = [&](int64_t n, int64_t t, int64_t c) {
    return geometry.channels_last ? (n * T + t) * C + c : (n * C + c) * T + t;
  };
  // The numbers that share moments have the same key.
  const auto key = [&](int64_t n, int64_t t, int64_t c) {
    if (geometry.moments == SharedMoments::kBatch) return c;
    if (geometry.moments == SharedMoments::kGroup) return n * geometry.channel_groups + c / of_group;
    return n * T + t;
  };
  std::vector<double> count(of.size()), mean(of.size()), variance(of.size());
  const auto visit = [&](const auto& use) {
    for (int64_t n = 0; n < of.samples; ++n)
      for (int64_t t = 0; t < T; ++t)
        for (int64_t c = 0; c < C; ++c) use(n, c, key(n, t, c), place(n, t, c));
  };
  visit([&](int64_t, int64_t, int64_t k, int64_t i) {
    count[k] += 1;
    mean[k] += x[i];
  });
  for (int64_t k = 0; k < of.size(); ++k) mean[k] = geometry.centered && count[k] > 0 ? mean[k] / count[k] : 0;
  visit([&](int64_t, int64_t, int64_t k, int64_t i) { variance[k] += (x[i] - mean[k]) * (x[i] - mean[k]) / count[k]; });
  std::vector<double> gamma(of.samples * C), beta(of.samples * C), squares(2 * C, 1.0), cross(C, 1.0);
  visit([&](int64_t n, int64_t c, int64_t k, int64_t i) {
    const double g = 0.5 * dout[i];
    gamma[n * C + c] += g * (x[i] - mean[k]) / std::sqrt(variance[k] + geometry.epsilon);
    beta[n * C + c] += g;
  });
  for (int64_t i = 0; i < of.samples * C; ++i) {
    squares[i % C] += gamma[i] * gamma[i];
    squares[C + i % C] += beta[i] * beta[i];
    cross[i % C] += gamma[i] * beta[i];
  }
  std::vector<float> found(2 * C, 1.0f), found_cross(C, 1.0f);
  add_unit_wise_moments(geometry, {x.data(), FloatType::kFloat32, shape}, {dout.data(), FloatType::kFloat32, shape},
                        found.data(), found_cross.data());
  check::close(name, found.data(), squares, kTolerance);
  // Products of both signs cancel, and have the rounding of the squares.
  const double largest = *std::max_element(squares.begin(), squares.end());
  for (int64_t c = 0; c < C; ++c)
    if (!(std::fabs(found_cross[c] - cross[c]) <= kTolerance * largest)) {
      std::fprintf(stderr, "%s: cross %.9g, expected %.9g\n", name, found_cross[c], cross[c]);
      std::exit(1);
    }
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  test("batch", layer(SharedMoments::kBatch, {3}, false), {4, 3, 5, 7});
  // Several parts.
  test("batch, many", layer(SharedMoments::kBatch, {5}, false), {500, 5, 9, 9});
  test("batch of one position", layer(SharedMoments::kBatch, {70}, false), {3000, 70});
  test("batch, channels last", layer(SharedMoments::kBatch, {70}, true), {400, 3, 3, 70});
  test("group", layer(SharedMoments::kGroup, {6}, false, 2), {4, 6, 5, 3});
  test("group of one position", layer(SharedMoments::kGroup, {12}, false, 3), {9, 12});
  test("position", layer(SharedMoments::kPosition, {2, 9}, true), {400, 30, 2, 9});
  test("one sample", layer(SharedMoments::kPosition, {9}, true), {9});
  NormalizationGeometry root_mean_square = layer(SharedMoments::kPosition, {33}, true);
  root_mean_square.centered = false;
  test("root mean square", root_mean_square, {5, 4, 33});
}
