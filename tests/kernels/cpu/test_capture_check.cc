// Compares the capture check of dense layers and convolutions of any shape with plain loops in float64.

#include "../../../ms_kfac/kernels/interface/signs.h"
#include "check.h"
#include "statistics/capture_check.h"

namespace {

using namespace ms_kfac;

// The sums of u and v are in single precision. The required accuracy is 1e-5.
constexpr double kTolerance = 2e-6;

std::mt19937 generator(7);

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

struct Expected {
  double uv = 0, uu = 0, vv = 0;

  void add(double u, double v) {
    uv += u * v;
    uu += u * u;
    vv += v * v;
  }
};

// The error of the product is relative to the scale, that of the scale is relative to the scale itself.
void compare(const char* what, const CaptureCheck& found, const std::vector<Expected>& groups) {
  double product = 0, scale = 0;
  for (const Expected& group : groups) {
    product += group.uv;
    scale += std::sqrt(group.uu) * std::sqrt(group.vv);
  }
  check::close(what, &found.scale, {scale}, kTolerance);
  const float relative[] = {static_cast<float>(found.product / scale), 1.0f};
  check::close(what, relative, {product / scale, 1.0}, kTolerance);
}

// The check must not depend on the statistics' settings.
LayerGeometry with_statistics_options(LayerGeometry geometry) {
  geometry.reduce = pick(0, 1) == 1;
  geometry.mean_reduction = pick(0, 1) == 1;
  geometry.gradient_scale = 0.25f;
  return geometry;
}

void check_dense(int64_t samples, int64_t locations, int64_t d, int64_t e) {
  const int64_t count = samples * locations;
  const std::vector<float> x = check::normal(count * d, 1), dout = check::normal(count * e, 2);
  LayerGeometry geometry;
  geometry.bias = pick(0, 1) == 1;
  Expected expected;
  for (int64_t n = 0; n < count; ++n) {
    double u = geometry.bias ? 1 : 0, v = 0;
    for (int64_t i = 0; i < d; ++i) u += sign(kColumns, i) * sign(kTaps, 0) * x[n * d + i];
    for (int64_t o = 0; o < e; ++o) v += sign(kRows, o) * dout[n * e + o];
    expected.add(u, v);
  }
  compare("dense",
          capture_check(with_statistics_options(geometry), {x.data(), FloatType::kFloat32, {samples, locations, d}},
                        {dout.data(), FloatType::kFloat32, {samples, locations, e}}),
          {expected});
}

// `channels` and `outputs` are per group.
void check_convolution(Window window, bool same_padding, int64_t groups, int64_t samples, int64_t channels,
                       int64_t outputs, Pair size) {
  LayerGeometry geometry;
  geometry.convolution = true;
  geometry.bias = pick(0, 1) == 1;
  geometry.groups = groups;
  geometry.same_padding = same_padding;
  geometry.window = window;
  if (same_padding)
    for (int axis : {0, 1}) window.pad_to_same(axis, size[axis]);
  const int64_t height = window.locations(0, size[0]), width = window.locations(1, size[1]);
  const std::vector<float> x = check::normal(samples * groups * channels * size[0] * size[1], 3);
  std::vector<float> dout = check::normal(samples * groups * outputs * height * width, 4);
  std::vector<Expected> expected(groups);
  for (int64_t n = 0; n < samples; ++n)
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t y = 0; y < height; ++y)
        for (int64_t z = 0; z < width; ++z) {
          double u = geometry.bias ? 1 : 0, v = 0;
          for (int64_t c = 0; c < channels; ++c)
            for (int64_t i = 0; i < window.kernel[0]; ++i)
              for (int64_t j = 0; j < window.kernel[1]; ++j) {
                const int64_t row = y * window.stride[0] + i * window.dilation[0] - window.before[0];
                const int64_t column = z * window.stride[1] + j * window.dilation[1] - window.before[1];
                if (row < 0 || row >= size[0] || column < 0 || column >= size[1]) continue;
                u += sign(kColumns, c) * sign(kTaps, i * window.kernel[1] + j) *
                     x[((n * groups + group) * channels + c) * size[0] * size[1] + row * size[1] + column];
              }
          for (int64_t o = 0; o < outputs; ++o)
            v += sign(kRows, group * outputs + o) *
                 dout[((n * groups + group) * outputs + o) * height * width + y * width + z];
          expected[group].add(u, v);
        }
  compare("convolution",
          capture_check(with_statistics_options(geometry),
                        {x.data(), FloatType::kFloat32, {samples, groups * channels, size[0], size[1]}},
                        {dout.data(), FloatType::kFloat32, {samples, groups * outputs, height, width}}),
          expected);
}

void check_same_for_a_number_of_threads() {
  const std::vector<float> x = check::normal(int64_t{64} * 40 * 100, 1), dout = check::normal(int64_t{64} * 40 * 64, 2);
  LayerGeometry geometry;
  geometry.convolution = true;
  geometry.window.kernel = {3, 3};
  const auto compute = [&] {
    return capture_check(geometry, {x.data(), FloatType::kFloat32, {64, 40, 10, 10}},
                         {dout.data(), FloatType::kFloat32, {64, 40, 8, 8}});
  };
  const CaptureCheck once = compute(), again = compute();
  if (once.product == again.product && once.scale == again.scale) return;
  std::fprintf(stderr, "two runs differ\n");
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  for (int index = 0; index < 10; ++index) check_dense(pick(1, 30), pick(1, 3), pick(1, 100), pick(1, 9));
  // More rows than one read, and more numbers than one thread processes.
  check_dense(700, 1, 230, 100);
  check_dense(3, 2, 20000, 3);
  for (int index = 0; index < 60; ++index) {
    const Window window{{pick(1, 4), pick(1, 4)},
                        {pick(1, 3), pick(1, 3)},
                        {pick(1, 3), pick(1, 3)},
                        {pick(0, 4), pick(0, 4)},
                        {pick(0, 4), pick(0, 4)}};
    const Pair size{pick(10, 14), pick(10, 14)};
    check_convolution(window, false, pick(1, 4), pick(1, 4), pick(1, 7), pick(1, 5), size);
    Window same = window;
    same.before = same.after = {0, 0};
    check_convolution(same, true, pick(1, 2), pick(1, 3), pick(1, 5), pick(1, 5), size);
  }
  const Window pointwise, three{{3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}};
  check_convolution(pointwise, false, 1, 5, 70, 33, {7, 7});
  check_convolution(pointwise, false, 2, 3, 70, 33, {1, 1});
  check_convolution(three, false, 1, 6, 40, 50, {28, 20});
  // Depthwise.
  check_convolution(three, false, 50, 6, 1, 1, {12, 12});
  // Large channels, of which one read contains only a few.
  check_convolution({{7, 7}, {2, 2}, {1, 1}, {3, 3}, {3, 3}}, false, 1, 2, 6, 3, {70, 90});
  check_same_for_a_number_of_threads();
}
