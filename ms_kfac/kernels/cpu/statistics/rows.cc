#include "rows.h"

namespace ms_kfac {

const float* StackedRows::read(int64_t first, int64_t count, std::vector<float>& scratch) const {
  if (locations_ == 1 && factor_ == 1.0f) return values_.read(first * features_, count * features_, scratch);
  if (static_cast<int64_t>(scratch.size()) < count * features_) scratch.resize(count * features_);
  static thread_local std::vector<float> converted;
  for (int64_t row = 0; row < count; ++row) {
    float* sum = scratch.data() + row * features_;
    std::fill_n(sum, features_, 0.0f);
    for (int64_t location = 0; location < locations_; ++location) {
      const float* values = values_.read(((first + row) * locations_ + location) * features_, features_, converted);
      for (int64_t feature = 0; feature < features_; ++feature) sum[feature] += values[feature];
    }
    for (int64_t feature = 0; feature < features_; ++feature) sum[feature] *= factor_;
  }
  return scratch.data();
}

const float* SummedPatches::read(int64_t first, int64_t count, std::vector<float>& scratch) const {
  const int64_t width = features(), taps = window_.taps();
  if (static_cast<int64_t>(scratch.size()) < count * width) scratch.resize(count * width);
  static thread_local std::vector<float> converted, sums;
  for (int64_t sample = 0; sample < count; ++sample)
    for (int64_t channel = 0; channel < images_.channels; ++channel) {
      const float* image =
          images_.values.read(images_.at(first + sample, channel, 0), images_.height * images_.width, converted);
      float* to = scratch.data() + sample * width + channel * taps;
      sum_taps(image, images_.height, images_.width, window_, to, sums);
      for (int64_t tap = 0; tap < taps; ++tap) to[tap] *= factor_;
    }
  return scratch.data();
}

const float* ScaledRows::read(int64_t first, int64_t count, std::vector<float>& scratch) const {
  if (!bias_ && factor_ == 1.0f) return rows_.read(first, count, scratch);
  const int64_t from = rows_.features(), width = features();
  if (static_cast<int64_t>(scratch.size()) < count * width) scratch.resize(count * width);
  static thread_local std::vector<float> unscaled;
  const float* values = rows_.read(first, count, unscaled);
  for (int64_t row = 0; row < count; ++row) {
    float* to = scratch.data() + row * width;
    for (int64_t feature = 0; feature < from; ++feature) to[feature] = factor_ * values[row * from + feature];
    if (bias_) to[from] = factor_;
  }
  return scratch.data();
}

void sum_taps(const float* image, int64_t height, int64_t width, const Window& window, float* sums,
              std::vector<float>& scratch) {
  if (static_cast<int64_t>(scratch.size()) < width) scratch.resize(width);
  for (int64_t i = 0; i < window.kernel[0]; ++i) {
    // Sums over rows first, because that loop is contiguous in memory.
    float* column_sums = scratch.data();
    std::fill_n(column_sums, width, 0.0f);
    const auto [top, bottom] = window.inside(0, i, height);
    for (int64_t u = top; u < bottom; ++u) {
      const float* row = image + (u * window.stride[0] + i * window.dilation[0] - window.before[0]) * width;
      for (int64_t w = 0; w < width; ++w) column_sums[w] += row[w];
    }
    for (int64_t j = 0; j < window.kernel[1]; ++j) {
      const auto [left, right] = window.inside(1, j, width);
      float sum = 0;
      for (int64_t v = left; v < right; ++v)
        sum += column_sums[v * window.stride[1] + j * window.dilation[1] - window.before[1]];
      sums[i * window.kernel[1] + j] = sum;
    }
  }
}

}  // namespace ms_kfac
