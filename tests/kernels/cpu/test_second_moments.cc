// Compares second moments of rows and of patches, of any shape, with plain loops in float64.

#include <string>

#include "check.h"
#include "statistics/lag_plans.h"
#include "statistics/lagged_products.h"
#include "statistics/layer_batch.h"
#include "statistics/second_moments.h"

namespace {

using namespace ms_kfac;

// Sums of products of standard normals and of ones over up to 3000 vectors, in single precision. The error is relative
// to the largest sum. The difference of lag moments increases it at most by a factor of the number of taps.
constexpr double kTolerance = 3e-6;

std::mt19937 generator(11);

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

// A symmetric, nonzero matrix, because the kernels add to it.
std::vector<float> start(int64_t dimension) {
  std::vector<float> matrix = check::normal(dimension * dimension, 5);
  for (int64_t i = 0; i < dimension; ++i)
    for (int64_t j = 0; j < i; ++j) matrix[i * dimension + j] = matrix[j * dimension + i];
  return matrix;
}

void add_products(std::vector<double>& expected, const std::vector<double>& vector) {
  for (size_t i = 0; i < vector.size(); ++i)
    for (size_t j = 0; j < vector.size(); ++j) expected[i * vector.size() + j] += vector[i] * vector[j];
}

// Calls use(vector) for every patch, or once per sample for the sum of its patches times a factor.
template <typename Use>
void each_patch(const std::vector<float>& x, const Images& images, const Window& window, bool bias, const Use& use) {
  for (int64_t n = 0; n < images.samples; ++n)
    for (int64_t u = 0; u < window.locations(0, images.height); ++u)
      for (int64_t v = 0; v < window.locations(1, images.width); ++v) {
        std::vector<double> patch;
        for (int64_t c = 0; c < images.channels; ++c)
          for (int64_t i = 0; i < window.kernel[0]; ++i)
            for (int64_t j = 0; j < window.kernel[1]; ++j) {
              const int64_t row = u * window.stride[0] + i * window.dilation[0] - window.before[0];
              const int64_t column = v * window.stride[1] + j * window.dilation[1] - window.before[1];
              const bool inside = row >= 0 && row < images.height && column >= 0 && column < images.width;
              patch.push_back(inside ? x[images.at(n, c, row) + column] : 0.0);
            }
        if (bias) patch.push_back(1.0);
        use(n, patch);
      }
}

struct Case {
  std::vector<float> x;
  Images images;
  Window window;
  bool bias;
  std::string name;
};

Case random_case(bool dense, int64_t most_channels) {
  Window window{};
  Pair size{};
  for (int axis : {0, 1}) {
    window.kernel[axis] = pick(1, 4);
    window.stride[axis] = dense ? 1 : pick(1, 3);
    window.dilation[axis] = dense ? 1 : pick(1, 2);
    window.before[axis] = pick(0, 4);
    window.after[axis] = pick(0, 4);
    const int64_t reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
    size[axis] = pick(std::max<int64_t>(1, reach - window.before[axis] - window.after[axis]), 9);
  }
  const int64_t samples = pick(1, 12), channels = pick(1, most_channels), others = pick(0, 2);
  const int64_t stride = (channels + others) * size[0] * size[1];
  std::vector<float> x = check::normal(samples * stride, static_cast<unsigned>(stride));
  for (float& value : x) value += 0.5f;
  const Values values(nullptr, FloatType::kFloat32);
  Case made{std::move(x),
            {values, samples, channels, size[0], size[1], stride, others * size[0] * size[1]},
            window,
            pick(0, 1) == 1,
            ""};
  for (int64_t number : {samples, channels, size[0], size[1], window.kernel[0], window.kernel[1], window.before[0],
                         window.before[1], window.after[0], window.after[1], window.stride[0], window.stride[1]})
    made.name += " " + std::to_string(number);
  return made;
}

void check_patches(int index) {
  const bool dense = index % 3 != 0;
  Case drawn = random_case(dense, index % 10 == 9 ? 21 : 6);
  drawn.images.values = Values(drawn.x.data(), FloatType::kFloat32);
  const Columns columns(drawn.images, drawn.window, drawn.bias);
  const int64_t d = columns.features();
  std::vector<float> unfolded = start(d), lagged = unfolded;
  std::vector<double> expected(unfolded.begin(), unfolded.end());
  each_patch(drawn.x, drawn.images, drawn.window, drawn.bias,
             [&](int64_t, const std::vector<double>& patch) { add_products(expected, patch); });
  add_unfolded_moment(columns, unfolded.data(), pick(1, 3));
  check::close(("unfolded" + drawn.name).c_str(), unfolded.data(), expected, kTolerance);
  if (!dense) return;
  LagMoments(drawn.images.shape(), drawn.window).add(drawn.images, drawn.bias, lagged.data(), pick(1, 3));
  check::close(("lagged" + drawn.name).c_str(), lagged.data(), expected, kTolerance);
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j < i; ++j)
      if (lagged[i * d + j] != lagged[j * d + i]) {
        std::fprintf(stderr, "lagged: not symmetric%s\n", drawn.name.c_str());
        std::exit(1);
      }
}

void check_summed_patches() {
  Case drawn = random_case(false, 6);
  drawn.images.values = Values(drawn.x.data(), FloatType::kFloat32);
  const SummedPatches rows(drawn.images, drawn.window, 0.25f);
  const int64_t d = rows.features() + (drawn.bias ? 1 : 0);
  std::vector<float> found = start(d);
  std::vector<double> expected(found.begin(), found.end());
  std::vector<std::vector<double>> sums(rows.count(), std::vector<double>(d));
  each_patch(drawn.x, drawn.images, drawn.window, drawn.bias, [&](int64_t n, const std::vector<double>& patch) {
    for (int64_t i = 0; i < d; ++i) sums[n][i] += 0.25 * patch[i];
    if (drawn.bias) sums[n][d - 1] = 1.0;
  });
  for (const auto& sum : sums) add_products(expected, sum);
  add_row_moment(rows, drawn.bias, found.data(), 3);
  check::close(("summed" + drawn.name).c_str(), found.data(), expected, kTolerance);
}

// Large enough that several threads split the sum by its vectors, by its rows or by both.
void check_rows(int64_t count, int64_t features, bool bias) {
  const std::vector<float> x = check::normal(count * features, 3);
  const int64_t d = features + (bias ? 1 : 0);
  std::vector<float> found = start(d);
  std::vector<double> expected(found.begin(), found.end());
  for (int64_t row = 0; row < count; ++row) {
    std::vector<double> vector(x.begin() + row * features, x.begin() + (row + 1) * features);
    for (double& value : vector) value *= 2.0;
    if (bias) vector.push_back(1.0);
    add_products(expected, vector);
  }
  const Values values(x.data(), FloatType::kFloat32, 2.0f);
  add_row_moment(StackedRows(values, count, 1, features, 1.0f), bias, found.data(), 3);
  check::close("rows", found.data(), expected, kTolerance);
}

// Both algorithms, with buffers that are filled several times and only partly the last time.
void check_large_patches(int64_t channels, int64_t samples, int64_t size, int64_t workers) {
  std::vector<float> x = check::normal(samples * channels * size * size, 8);
  const Images images{Values(x.data(), FloatType::kFloat32), samples, channels, size, size, channels * size * size, 0};
  const Window window{{3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}};
  const Columns columns(images, window, false);
  const int64_t d = columns.features();
  std::vector<float> unfolded(d * d), lagged(d * d);
  add_unfolded_moment(columns, unfolded.data(), workers);
  LagMoments(images.shape(), window).add(images, false, lagged.data(), workers);
  const std::vector<double> expected(unfolded.begin(), unfolded.end());
  check::close("large lagged", lagged.data(), expected, kTolerance);
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

// Planning for 961 taps takes minutes and gigabytes, so it must not start.
void check_many_taps() {
  const std::vector<float> x = check::normal(40 * 40, 9);
  const Images images{Values(x.data(), FloatType::kFloat32), 1, 1, 40, 40, 40 * 40, 0};
  const Window window{{31, 31}, {1, 1}, {1, 1}, {0, 0}, {0, 0}};
  require(lag_plan(images.shape(), window, 1e15) == nullptr, "31 x 31: a plan was made");
  std::vector<float> found = start(31 * 31);
  std::vector<double> expected(found.begin(), found.end());
  each_patch(x, images, window, false,
             [&](int64_t, const std::vector<double>& patch) { add_products(expected, patch); });
  add_patch_moment(images, window, false, found.data(), 1);
  check::close("31 x 31", found.data(), expected, kTolerance);
}

void check_groups_share_plan() {
  const int64_t groups = 8, channels = 3, samples = 16, size = 14;
  LayerGeometry geometry;
  geometry.convolution = true;
  geometry.window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}};
  geometry.groups = groups;
  const std::vector<int64_t> shape{samples, groups * channels, size, size};
  const std::vector<float> x = check::normal(samples * groups * channels * size * size, 10);
  const FloatArray array{x.data(), FloatType::kFloat32, shape};
  const LayerBatch batch(geometry, array, array);
  const LayerSide first = batch.inputs(0), last = batch.inputs(groups - 1);
  const double unfolded = Columns(first.images, first.window, false).cost();
  const auto plan = lag_plan(first.images.shape(), first.window, unfolded);
  require(plan != nullptr, "groups: unfolding was considered cheaper");
  require(plan == lag_plan(last.images.shape(), last.window, unfolded), "groups: each has its own plan");
  const int64_t d = first.features();
  std::vector<float> found;
  for (int64_t group = 0; group < groups; ++group) {
    const std::vector<float> matrix = start(d);
    found.insert(found.end(), matrix.begin(), matrix.end());
  }
  std::vector<double> expected(found.begin(), found.end());
  batch.for_groups([&](int64_t group, int64_t workers) {
    add_side_moment(batch.inputs(group), found.data() + group * d * d, workers);
  });
  for (int64_t group = 0; group < groups; ++group) {
    const LayerSide side = batch.inputs(group);
    std::vector<double> sum(expected.begin() + group * d * d, expected.begin() + (group + 1) * d * d);
    each_patch(x, side.images, side.window, false,
               [&](int64_t, const std::vector<double>& patch) { add_products(sum, patch); });
    check::close("groups", found.data() + group * d * d, sum, kTolerance);
  }
}

// Each image size has its own plan. The sums stay correct with more sizes than cached plans.
void check_many_plans() {
  for (int64_t size = 80; size > 3; --size) {
    const std::vector<float> x = check::normal(4 * size * size, static_cast<unsigned>(size));
    const Images images{Values(x.data(), FloatType::kFloat32), 1, 4, size, size, 4 * size * size, 0};
    const Window window{{2, 2}, {1, 1}, {1, 1}, {0, 1}, {1, 0}};
    std::vector<float> found(16 * 16), expected(16 * 16);
    const auto plan = lag_plan(images.shape(), window, 1e15);
    require(plan != nullptr, "many plans: no plan");
    plan->add(images, false, found.data(), 1);
    add_unfolded_moment(Columns(images, window, false), expected.data(), 1);
    check::close("many plans", found.data(), std::vector<double>(expected.begin(), expected.end()), kTolerance);
  }
}

void check_types() {
  // 1.5, -2, the smallest subnormal, infinity and 65504 in float16. 1.5, -2 and 3 in bfloat16.
  const uint16_t halves[] = {0x3e00, 0xc000, 0x0001, 0x7c00, 0x7bff}, brains[] = {0x3fc0, 0xc000, 0x4040};
  const double doubles[] = {0.25, -4.0};
  std::vector<float> scratch;
  const auto expect = [&](const void* data, FloatType type, int64_t at, float expected) {
    const float found = *Values(data, type, 2.0f).read(at, 1, scratch);
    if (found == 2.0f * expected) return;
    std::fprintf(stderr, "types: got %g, expected %g\n", found, 2.0 * expected);
    std::exit(1);
  };
  const float floats[] = {1.5f, -2.0f, 0x1p-24f, INFINITY, 65504.0f};
  for (int64_t i = 0; i < 5; ++i) expect(halves, FloatType::kFloat16, i, floats[i]);
  expect(brains, FloatType::kBfloat16, 0, 1.5f);
  expect(brains, FloatType::kBfloat16, 1, -2.0f);
  expect(brains, FloatType::kBfloat16, 2, 3.0f);
  expect(doubles, FloatType::kFloat64, 0, 0.25f);
  expect(doubles, FloatType::kFloat64, 1, -4.0f);
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  check_types();
  for (int index = 0; index < 60; ++index) check_patches(index);
  for (int index = 0; index < 10; ++index) check_summed_patches();
  check_rows(7, 5, true);
  check_rows(3000, 40, true);
  check_rows(40, 300, true);
  check_rows(60, 600, false);
  // So few vectors that the threads split the matrix.
  check_rows(2, 2100, true);
  check_large_patches(60, 40, 6, 3);
  check_large_patches(60, 50, 5, 1);
  check_many_taps();
  check_groups_share_plan();
  check_many_plans();
}
