#include "measure_gradients.h"

#include <algorithm>
#include <cmath>

#include "../../interface/signs.h"
#include "../linalg/inner_product.h"
#include "../threads/threads.h"

namespace ms_kfac {
namespace {

constexpr int64_t kChunk = 1 << 15;

struct Sums {
  double gradient = 0, weight = 0, squares = 0;
};

// Some rows of one layer.
struct Part {
  size_t layer;
  int64_t first, last;
};

std::vector<float> signs_of_row(const MeasuredLayer& layer) {
  std::vector<float> signs(layer.columns * layer.taps);
  for (int64_t tap = 0; tap < layer.taps; ++tap) signs[tap] = sign(kTaps, static_cast<uint32_t>(tap));
  for (int64_t column = layer.columns - 1; column >= 0; --column) {
    const float of_column = sign(kColumns, static_cast<uint32_t>(column));
    for (int64_t tap = 0; tap < layer.taps; ++tap) signs[column * layer.taps + tap] = of_column * signs[tap];
  }
  return signs;
}

Sums sums_of(const MeasuredLayer& layer, const std::vector<float>& signs, int64_t first, int64_t last) {
  const auto width = static_cast<int64_t>(signs.size());
  Sums sums;
  for (int64_t row = first; row < last; ++row) {
    const float* gradient = layer.gradient + row * width;
    const double of_row = sign(kRows, static_cast<uint32_t>(row));
    sums.gradient += of_row * inner_product(gradient, signs.data(), width);
    sums.weight += of_row * inner_product(layer.weight + row * width, signs.data(), width);
    sums.squares += inner_product(gradient, gradient, width);
  }
  return sums;
}

Sums sums_of_bias(const MeasuredLayer& layer) {
  Sums sums;
  for (int64_t row = 0; row < layer.biases; ++row) {
    const double of_row = sign(kRows, static_cast<uint32_t>(row)), gradient = layer.bias_gradient[row];
    sums.gradient += of_row * gradient;
    sums.weight += of_row * layer.bias[row];
    sums.squares += gradient * gradient;
  }
  return sums;
}

}  // namespace

void measure_gradients(const std::vector<MeasuredLayer>& layers, float* numbers) {
  std::vector<std::vector<float>> signs(layers.size());
  parallel_for(static_cast<int64_t>(layers.size()), [&](int64_t index) { signs[index] = signs_of_row(layers[index]); });
  std::vector<Part> parts;
  for (size_t index = 0; index < layers.size(); ++index) {
    const MeasuredLayer& layer = layers[index];
    const int64_t at_once = std::max<int64_t>(kChunk / std::max<int64_t>(layer.columns * layer.taps, 1), 1);
    for (int64_t first = 0; first < layer.rows; first += at_once)
      parts.push_back({index, first, std::min(first + at_once, layer.rows)});
  }
  std::vector<Sums> sums(parts.size());
  parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t index) {
    const Part& part = parts[index];
    sums[index] = sums_of(layers[part.layer], signs[part.layer], part.first, part.last);
  });
  std::vector<Sums> totals;
  for (const MeasuredLayer& layer : layers) totals.push_back(sums_of_bias(layer));
  for (size_t index = 0; index < parts.size(); ++index) {
    Sums& total = totals[parts[index].layer];
    total.gradient += sums[index].gradient;
    total.weight += sums[index].weight;
    total.squares += sums[index].squares;
  }
  for (const Sums& total : totals) {
    *numbers++ = static_cast<float>(total.gradient);
    *numbers++ = static_cast<float>(total.weight);
    *numbers++ = static_cast<float>(std::sqrt(total.squares));
  }
}

}  // namespace ms_kfac
