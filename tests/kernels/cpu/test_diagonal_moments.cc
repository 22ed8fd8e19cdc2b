// Compares diagonals of second moments of rows and of patches with plain loops in float64.

#include "check.h"
#include "statistics/diagonal_moments.h"

namespace {

using namespace ms_kfac;

// Squares of standard normals are positive. Rounding grows with the square root of their number.
constexpr double kTolerance = 1e-6;

void test_rows(int64_t count, int64_t features, bool bias) {
  const std::vector<float> x = check::normal(count * features, 3);
  LayerSide side;
  side.rows = std::make_unique<StackedRows>(Values(x.data(), FloatType::kFloat32, 0.5f), count, 1, features, 1.0f);
  side.bias = bias;
  std::vector<float> diagonal(side.features(), 1.0f);
  std::vector<double> expected(side.features(), 1.0);
  for (int64_t row = 0; row < count; ++row)
    for (int64_t feature = 0; feature < features; ++feature)
      expected[feature] += 0.25 * x[row * features + feature] * x[row * features + feature];
  if (bias) expected[features] += static_cast<double>(count);
  add_side_diagonal(side, diagonal.data());
  check::close("rows", diagonal.data(), expected, kTolerance);
}

void test_patches(const Window& window, Pair size, int64_t channels, bool bias) {
  const int64_t samples = 3, all_channels = channels + 2, pixels = size[0] * size[1];
  const std::vector<float> x = check::normal(samples * all_channels * pixels, 5);
  LayerSide side;
  // The channels in the middle, like those of a group.
  side.images = {
      Values(x.data(), FloatType::kFloat32), samples, channels, size[0], size[1], all_channels * pixels, pixels};
  side.window = window;
  side.bias = bias;
  std::vector<float> diagonal(side.features(), 1.0f);
  std::vector<double> expected(side.features(), 1.0);
  const int64_t height = window.locations(0, size[0]), width = window.locations(1, size[1]);
  for (int64_t n = 0; n < samples; ++n)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t tap = 0; tap < window.taps(); ++tap)
        for (int64_t u = 0; u < height; ++u)
          for (int64_t v = 0; v < width; ++v) {
            const int64_t row = u * window.stride[0] + tap / window.kernel[1] * window.dilation[0] - window.before[0];
            const int64_t column =
                v * window.stride[1] + tap % window.kernel[1] * window.dilation[1] - window.before[1];
            if (row < 0 || row >= size[0] || column < 0 || column >= size[1]) continue;
            const double value = x[side.images.at(n, c, row) + column];
            expected[c * window.taps() + tap] += value * value;
          }
  if (bias) expected.back() += static_cast<double>(samples * height * width);
  add_side_diagonal(side, diagonal.data());
  check::close("patches", diagonal.data(), expected, kTolerance);
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  for (bool bias : {false, true}) {
    test_rows(1, 1, bias);
    test_rows(7, 13, bias);
    test_rows(3000, 100, bias);
    test_patches(Window{}, {5, 4}, 3, bias);
    test_patches({{3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}, {6, 7}, 5, bias);
    test_patches({{3, 2}, {2, 3}, {2, 1}, {2, 0}, {1, 3}}, {9, 8}, 1, bias);
  }
}
