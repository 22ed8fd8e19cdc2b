#include "diagonal_moments.h"

#include "../threads/multiversion.h"
#include "../threads/threads.h"

namespace ms_kfac {
namespace {

// Floats per read of rows.
constexpr int64_t kRowFloats = 64 << 10;

MS_KFAC_CLONES void add_squares(const float* values, int64_t count, double* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<double>(values[i]) * values[i];
}

// Returns the number of rows.
int64_t add_row_squares(const Rows& rows, float* diagonal) {
  const int64_t features = rows.features(), count = rows.count();
  const int64_t at_once = std::max<int64_t>(kRowFloats / features, 1);
  const int64_t parts = std::max<int64_t>(std::min<int64_t>(threads(), count / at_once), 1);
  std::vector<double> sums(parts * features);
  parallel_for(parts, [&](int64_t part) {
    std::vector<float> scratch;
    const int64_t last = (part + 1) * count / parts;
    for (int64_t row = part * count / parts; row < last; row += at_once) {
      const int64_t some = std::min(at_once, last - row);
      const float* values = rows.read(row, some, scratch);
      for (int64_t r = 0; r < some; ++r) add_squares(values + r * features, features, sums.data() + part * features);
    }
  });
  for (int64_t feature = 0; feature < features; ++feature) {
    double total = 0;
    for (int64_t part = 0; part < parts; ++part) total += sums[part * features + feature];
    diagonal[feature] += static_cast<float>(total);
  }
  return count;
}

// Returns the number of patches.
int64_t add_patch_squares(const Images& images, const Window& window, float* diagonal) {
  const int64_t pixels = images.height * images.width, taps = window.taps();
  parallel_for(images.channels, [&](int64_t channel) {
    std::vector<float> scratch, sums(taps);
    std::vector<double> squares(pixels);
    for (int64_t sample = 0; sample < images.samples; ++sample)
      add_squares(images.values.read(images.at(sample, channel, 0), pixels, scratch), pixels, squares.data());
    const std::vector<float> image(squares.begin(), squares.end());
    sum_taps(image.data(), images.height, images.width, window, sums.data(), scratch);
    for (int64_t tap = 0; tap < taps; ++tap) diagonal[channel * taps + tap] += sums[tap];
  });
  return images.samples * window.locations(0, images.height) * window.locations(1, images.width);
}

}  // namespace

void add_side_diagonal(const LayerSide& side, float* diagonal) {
  const int64_t vectors =
      side.rows ? add_row_squares(*side.rows, diagonal) : add_patch_squares(side.images, side.window, diagonal);
  if (side.bias) diagonal[side.features() - 1] += static_cast<float>(vectors);
}

}  // namespace ms_kfac
