#include "lag_moments.h"

#include <cstring>

#include "../linalg/symmetric_sum.h"
#include "../threads/threads.h"
#include "lagged_products.h"
#include "rows.h"

namespace ms_kfac {
namespace {

// Floats of a cut's buffer, unless a single sample needs more. Together with the other data of a task they stay in the
// second-level cache.
constexpr int64_t kPlaneFloats = 64 << 10, kBandFloats = 16 << 10;
// Below this number of positions, adding up the lanes of the accumulators costs more than filling them.
constexpr int64_t kFewPositions = 256;

// Measured on one core with AVX-512, in nanoseconds.
constexpr double kMultiplyAdd = 0.01, kCopy = 0.1, kTermOfEntry = 0.25, kEntry = 1.0;
// Per float of the accumulators that does not fit in the second-level cache.
constexpr double kAccumulator = 4.0;
constexpr int64_t kCachedFloats = 256 << 10;
// Number of positions whose products cost as much as adding up the lanes.
constexpr double kLaneSums = 86;
// Per pair of taps, and per piece of the images that the pair may omit.
constexpr double kPlannedPair = 80, kPlannedPiece = 2.2;

}  // namespace

std::vector<LagMoments::Band> LagMoments::bands(int axis, const ImageShape& shape, const Window& window) {
  const int64_t size = axis == 0 ? shape.height : shape.width;
  const int64_t before = std::clamp<int64_t>(window.kernel[axis] - 1 - window.before[axis], 0, size);
  const int64_t after = std::clamp<int64_t>(window.kernel[axis] - 1 - window.after[axis], 0, size);
  std::vector<Band> found = {{Place::kWhole, 0, 1}};
  if (before > 0) found.push_back({Place::kBefore, 0, before});
  if (after > 0) found.push_back({Place::kAfter, size - after, after});
  return found;
}

double LagMoments::planning_cost(const ImageShape& shape, const Window& window) {
  const auto taps = static_cast<double>(window.taps());
  double pieces = 1;
  for (int axis : {0, 1}) {
    int64_t count = 0;
    for (const Band& band : bands(axis, shape, window)) count += band.count;
    pieces *= static_cast<double>(count);
  }
  return 0.5 * taps * (taps + 1) * (kPlannedPair + kPlannedPiece * pieces);
}

LagMoments::LagMoments(const ImageShape& shape, const Window& window)
    : shape_(shape), window_(window), channels_(round_up(shape.channels, kChannelBlock)) {
  for (int64_t first = 0; first < window.taps(); ++first)
    for (int64_t second = first; second < window.taps(); ++second) pairs_.push_back({first, second, {}});
  for (const Band& rows : bands(0, shape, window))
    for (const Band& columns : bands(1, shape, window)) add_cut(rows, columns);
  cost_ = estimate();
}

void LagMoments::add_cut(const Band& rows, const Band& columns) {
  Cut cut{rows, columns, rows.count * columns.count, 1, 0, 0, 0, {}, products_};
  // Zeros follow each row and each sample, as many as the largest shift.
  const int64_t line = columns.whole() ? shape_.width + window_.kernel[1] - 1 : 1;
  const int64_t lines = rows.whole() ? shape_.height + window_.kernel[0] - 1 : 1;
  cut.sample_length = line * lines;
  const int64_t floats = rows.whole() && columns.whole() ? kPlaneFloats : kBandFloats;
  cut.capacity = std::max(floats / (channels_ * cut.sample_length * cut.pieces),
                          (kFewPositions + cut.sample_length - 1) / cut.sample_length);
  cut.capacity = std::clamp<int64_t>(cut.capacity, 1, std::max<int64_t>(shape_.samples, 1));
  cut.piece_length = round_up(cut.capacity * cut.sample_length, kPositionBlock);
  const int64_t reach = rows.whole() ? window_.kernel[0] * line : window_.kernel[1];
  cut.stride = round_up(cut.pieces * cut.piece_length + reach, kPositionBlock);
  std::vector<int64_t> known;
  for (TapPair& pair : pairs_) add_terms(cut, pair, known);
  products_ += static_cast<int64_t>(cut.products.size());
  cuts_.push_back(std::move(cut));
}

bool LagMoments::leaves_out(int axis, const Band& band, int64_t tap, int64_t piece) const {
  const int64_t start = tap - window_.before[axis], position = band.first + piece;
  switch (band.place) {
    case Place::kBefore:
      return position < start;
    case Place::kAfter:
      return position >= start + window_.locations(axis, axis == 0 ? shape_.height : shape_.width);
    default:
      return true;
  }
}

void LagMoments::add_terms(Cut& cut, TapPair& pair, std::vector<int64_t>& known) const {
  const auto [height, width] = window_.kernel;
  const Band &rows = cut.rows, &columns = cut.columns;
  const int64_t i = pair.first / width, j = pair.first % width;
  const int64_t down = pair.second / width - i, right = pair.second % width - j;
  const int64_t lags = height * (2 * width - 1);
  if (known.empty()) known.assign(cut.pieces * lags, -1);
  const int64_t line = columns.whole() ? shape_.width + width - 1 : 1;
  const int64_t shift = (rows.whole() ? down * line : 0) + (columns.whole() ? right : 0);
  const float sign = rows.whole() == columns.whole() ? 1.0f : -1.0f;
  for (int64_t row = 0; row < rows.count; ++row)
    for (int64_t column = 0; column < columns.count; ++column) {
      if (!leaves_out(0, rows, i, row) || !leaves_out(1, columns, j, column)) continue;
      const int64_t other_row = rows.whole() ? 0 : row + down, other_column = columns.whole() ? 0 : column + right;
      // The shifted piece lies outside the image.
      if (other_row < 0 || other_row >= rows.count || other_column < 0 || other_column >= columns.count) continue;
      const int64_t piece = row * columns.count + column, other = other_row * columns.count + other_column;
      // This piece and the lag determine the other piece.
      int64_t& product = known[piece * lags + down * (2 * width - 1) + right + width - 1];
      if (product < 0) {
        product = cut.first_product + static_cast<int64_t>(cut.products.size());
        cut.products.push_back({piece, (other - piece) * cut.piece_length + shift, down == 0 && right == 0});
      }
      pair.terms.push_back({product, sign});
    }
}

// The buffers of one task, with pointers to its accumulators.
class LagMoments::Task {
 public:
  Task(const LagMoments& moments, const Images& images, int64_t first, int64_t last, float* sums)
      : moments_(moments), images_(images), first_(first), last_(last) {
    for (const Cut& cut : moments.cuts_) {
      buffers_.emplace_back(moments.channels_ * cut.stride);
      std::vector<std::vector<Lag>> lags(cut.pieces);
      for (size_t i = 0; i < cut.products.size(); ++i)
        lags[cut.products[i].piece].push_back(
            {cut.products[i].shift, sums + (cut.first_product + i) * moments.accumulator(), cut.products[i].symmetric});
      lags_.push_back(std::move(lags));
    }
    filled_.assign(moments.cuts_.size(), 0);
  }

  // Copies a sample into the buffers. Adds the sums of what each tap sees to `tap_sums`, per channel, unless it is
  // null.
  void take(int64_t sample, double* tap_sums) {
    const int64_t taps = moments_.window_.taps();
    for (int64_t channel = 0; channel < images_.channels; ++channel) {
      const float* image =
          images_.values.read(images_.at(sample, channel, 0), images_.height * images_.width, converted_);
      for (size_t cut = 0; cut < buffers_.size(); ++cut) copy(cut, channel, image);
      if (tap_sums == nullptr) continue;
      seen_.resize(taps);
      sum_taps(image, images_.height, images_.width, moments_.window_, seen_.data(), column_sums_);
      for (int64_t tap = 0; tap < taps; ++tap) tap_sums[channel * taps + tap] += seen_[tap];
    }
    for (size_t cut = 0; cut < buffers_.size(); ++cut)
      if (++filled_[cut] == moments_.cuts_[cut].capacity) multiply(cut);
  }

  void finish() {
    for (size_t cut = 0; cut < buffers_.size(); ++cut) multiply(cut);
  }

 private:
  void copy(size_t index, int64_t channel, const float* image) {
    const Cut& cut = moments_.cuts_[index];
    const int64_t height = images_.height, width = images_.width;
    float* to = buffers_[index].data() + channel * cut.stride + filled_[index] * cut.sample_length;
    if (cut.columns.whole()) {
      const int64_t rows = cut.rows.whole() ? height : cut.rows.count;
      const int64_t step = cut.rows.whole() ? width + moments_.window_.kernel[1] - 1 : cut.piece_length;
      const float* from = image + cut.rows.first * width;
      for (int64_t row = 0; row < rows; ++row) std::memcpy(to + row * step, from + row * width, width * sizeof(float));
      return;
    }
    for (int64_t column = 0; column < cut.columns.count; ++column) {
      const float* from = image + cut.rows.first * width + cut.columns.first + column;
      if (cut.rows.whole()) {
        for (int64_t row = 0; row < height; ++row) to[column * cut.piece_length + row] = from[row * width];
      } else {
        for (int64_t row = 0; row < cut.rows.count; ++row)
          to[(row * cut.columns.count + column) * cut.piece_length] = from[row * width];
      }
    }
  }

  void multiply(size_t index) {
    const Cut& cut = moments_.cuts_[index];
    float* buffer = buffers_[index].data();
    const int64_t used = filled_[index] * cut.sample_length, length = round_up(used, kPositionBlock);
    filled_[index] = 0;
    for (int64_t piece = 0; piece < cut.pieces; ++piece) {
      // Clears the rest of an earlier, larger batch.
      for (int64_t channel = 0; channel < moments_.channels_; ++channel)
        std::fill_n(buffer + channel * cut.stride + piece * cut.piece_length + used, length - used, 0.0f);
    }
    for (int64_t piece = 0; piece < cut.pieces; ++piece)
      add_lagged_products(buffer, cut.stride, moments_.channels_, first_, last_, piece * cut.piece_length, length,
                          lags_[index][piece]);
  }

  const LagMoments& moments_;
  const Images& images_;
  // The channels whose rows of the accumulators this task fills.
  int64_t first_, last_;
  std::vector<std::vector<float>> buffers_;
  std::vector<std::vector<std::vector<Lag>>> lags_;
  std::vector<int64_t> filled_;
  std::vector<float> converted_, seen_, column_sums_;
};

void LagMoments::add(const Images& images, bool bias, float* matrix, int64_t workers) const {
  const int64_t all = products_ * accumulator(), features = shape_.channels * window_.taps();
  const int64_t stride = features + (bias ? 1 : 0), blocks = channels_ / kChannelBlock;
  Split split(workers, cost() / kMultiplyAdd, shape_.samples, all);
  split.panels = std::min(split.panels, blocks);
  std::vector<float> sums(split.parts * all);
  std::vector<double> tap_sums(bias ? split.parts * features : 0);
  parallel_for(split.tasks(), [&](int64_t index) {
    const int64_t part = split.part(index), panel = split.panel(index);
    Task task(*this, images, panel * blocks / split.panels * kChannelBlock,
              (panel + 1) * blocks / split.panels * kChannelBlock, sums.data() + part * all);
    double* own_tap_sums = bias && panel == 0 ? tap_sums.data() + part * features : nullptr;
    const int64_t last = split.last(index, shape_.samples);
    for (int64_t sample = split.first(index, shape_.samples); sample < last; ++sample) task.take(sample, own_tap_sums);
    task.finish();
  });
  for (int64_t part = 1; part < split.parts; ++part)
    for (int64_t i = 0; i < all; ++i) sums[i] += sums[part * all + i];
  assemble(sums.data(), matrix, stride, split.tasks() > 1);
  if (!bias) return;
  for (int64_t feature = 0; feature < features; ++feature) {
    double total = 0;
    for (int64_t part = 0; part < split.parts; ++part) total += tap_sums[part * features + feature];
    matrix[features * stride + feature] += static_cast<float>(total);
    matrix[feature * stride + features] = matrix[features * stride + feature];
  }
  const int64_t locations = window_.locations(0, shape_.height) * window_.locations(1, shape_.width);
  matrix[features * stride + features] += static_cast<float>(shape_.samples * locations);
}

void LagMoments::assemble(const float* sums, float* matrix, int64_t stride, bool parallel) const {
  // Tiles of channels, so that the strided writes to one of the triangles stay in the cache.
  constexpr int64_t kTile = 16;
  const int64_t channels = shape_.channels, taps = window_.taps(), tiles = (channels + kTile - 1) / kTile;
  const auto assemble_tiles = [&](int64_t tile) {
    for (int64_t column = 0; column < tiles; ++column)
      for (const TapPair& pair : pairs_) {
        const bool symmetric = pair.first == pair.second;
        if (symmetric && column < tile) continue;
        const int64_t first = column * kTile, count = std::min(kTile, channels - first);
        for (int64_t c = tile * kTile; c < std::min((tile + 1) * kTile, channels); ++c) {
          float block[kTile] = {};
          for (const Term& term : pair.terms) {
            const float* products = sums + term.product * accumulator() + c * channels_ + first;
            for (int64_t e = 0; e < count; ++e) block[e] += term.sign * products[e];
          }
          float* along = matrix + (c * taps + pair.first) * stride + first * taps + pair.second;
          float* across = matrix + (first * taps + pair.second) * stride + c * taps + pair.first;
          for (int64_t e = symmetric && column == tile ? c - first : 0; e < count; ++e) {
            const float sum = along[e * taps] + block[e];
            along[e * taps] = sum;
            across[e * taps * stride] = sum;
          }
        }
      }
  };
  if (parallel) {
    parallel_for(tiles, assemble_tiles);
  } else {
    for (int64_t tile = 0; tile < tiles; ++tile) assemble_tiles(tile);
  }
}

double LagMoments::estimate() const {
  double positions = 0;
  for (const Cut& cut : cuts_) {
    const double length = static_cast<double>(cut.capacity * cut.sample_length);
    const double batches = static_cast<double>(shape_.samples) / cut.capacity;
    const double once = length + kLaneSums * std::max(1.0, length / 1024);
    for (const Product& product : cut.products) positions += (product.symmetric ? 0.5 : 1.0) * once * batches;
  }
  double terms = 0;
  for (const TapPair& pair : pairs_) terms += kEntry + kTermOfEntry * static_cast<double>(pair.terms.size());
  const double channels = static_cast<double>(shape_.channels);
  const double pixels = static_cast<double>(shape_.samples * shape_.height * shape_.width);
  const auto outside = static_cast<double>(std::max<int64_t>(products_ * accumulator() - kCachedFloats, 0));
  return kMultiplyAdd * positions * accumulator() + kCopy * pixels * channels + terms * channels * channels +
         kAccumulator * outside;
}

}  // namespace ms_kfac
