// Compares scaled rows with a bias, and buffers of the rows of several micro-batches, with plain copies. Exactly: each
// number is one product.

#include <algorithm>

#include "check.h"
#include "statistics/row_buffer.h"

namespace {

using namespace ms_kfac;

std::mt19937 generator(13);

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

void run(int round) {
  const bool bias = pick(0, 1) != 0;
  const float factor = pick(0, 1) != 0 ? 0.3f : 1.0f;
  const int64_t features = pick(1, 20), size = features + (bias ? 1 : 0);
  // What an older batch left. The first micro-batch does not keep it.
  std::vector<float> matrix(size * size, 7.0f), expected = matrix;
  for (int part = 0; part < 3; ++part) {
    const bool keeps = part > 0;
    const int64_t available = pick(1, 2 * size), count = std::min(available, size);
    const std::vector<float> x = check::normal(available * features, 10 * round + part);
    const StackedRows stacked(Values(x.data(), FloatType::kFloat32), available, 1, features, 1.0f);
    const ScaledRows rows(stacked, bias, factor);
    std::vector<float> pushed;
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t feature = 0; feature < features; ++feature) pushed.push_back(factor * x[row * features + feature]);
      if (bias) pushed.push_back(factor);
    }
    if (keeps) pushed.insert(pushed.end(), expected.begin(), expected.end());
    std::copy_n(pushed.begin(), std::min(pushed.size(), expected.size()), expected.begin());
    push_rows(rows, count, matrix.data(), keeps);
    check::close("rows", matrix.data(), {expected.begin(), expected.end()}, 0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  for (int round = 0; round < 200; ++round) run(round);
}
