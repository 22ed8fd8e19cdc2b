#include "symmetric_sum.h"

#include <algorithm>
#include <cmath>

#include "../statistics/lagged_products.h"
#include "../threads/threads.h"
#include "blas.h"

namespace ms_kfac {
namespace {

// Multiply-adds that justify another thread: some tens of microseconds of work.
constexpr double kWorkPerThread = 2e6;
// Limit of the floats of all accumulators together: 16 MB.
constexpr int64_t kAccumulators = 4 << 20;
// Up to this dimension the lagged products are faster than BLAS, which first copies its operands.
constexpr int64_t kOwnProducts = 192;

}  // namespace

Split::Split(int64_t workers, double work, int64_t count, int64_t accumulator) {
  workers = std::clamp<int64_t>(static_cast<int64_t>(work / kWorkPerThread), 1, std::max<int64_t>(workers, 1));
  parts = std::clamp<int64_t>(kAccumulators / std::max<int64_t>(accumulator, 1), 1, workers);
  parts = std::min(parts, std::max<int64_t>(count, 1));
  panels = workers / parts;
}

SymmetricSum::SymmetricSum(float* matrix, int64_t stride, int64_t dimension, const Split& split)
    : matrix_(matrix),
      stride_(stride),
      dimension_(dimension),
      split_(split),
      in_place_(split.parts == 1 && dimension > kOwnProducts),
      leading_(in_place_ ? stride : round_up(dimension, kChannelBlock)) {
  if (!in_place_) parts_.assign(split.parts * leading_ * leading_, 0.0f);
}

SymmetricSum::Panel SymmetricSum::panel(int64_t task) const {
  // Rows from i on hold (1 - i / d)^2 of the upper triangle.
  const auto boundary = [this](int64_t index) {
    const double rest = 1.0 - static_cast<double>(index) / split_.panels;
    const auto row = static_cast<int64_t>(dimension_ * (1.0 - std::sqrt(std::max(rest, 0.0))));
    return index == split_.panels ? dimension_ : row / kChannelBlock * kChannelBlock;
  };
  return {boundary(split_.panel(task)), boundary(split_.panel(task) + 1)};
}

int64_t SymmetricSum::columns_at_once() const {
  if (dimension_ <= kOwnProducts) return std::clamp<int64_t>((128 << 10) / dimension_, 256, 2048);
  return std::clamp<int64_t>((512 << 10) / dimension_, 128, 2048);
}

void SymmetricSum::add_columns(int64_t task, const float* columns, int64_t stride, int64_t count) {
  const auto [first, last] = panel(task);
  if (first == last) return;
  float* sums = in_place_ ? matrix_ : parts_.data() + split_.part(task) * leading_ * leading_;
  if (dimension_ <= kOwnProducts) {
    static thread_local std::vector<Lag> lag(1);
    lag[0] = {0, sums, true};
    add_lagged_products(columns, stride, leading_, first, round_up(last, kChannelBlock), 0, count, lag);
    return;
  }
  const int size = static_cast<int>(last - first), rest = static_cast<int>(dimension_ - last);
  const float* own = columns + first * stride;
  const int depth = static_cast<int>(count), step = static_cast<int>(stride), leading = static_cast<int>(leading_);
  float* diagonal = sums + first * leading_ + first;
  blas::ssyrk(blas::kRowMajor, blas::kUpper, blas::kNo, size, depth, 1.0f, own, step, 1.0f, diagonal, leading);
  if (rest > 0)
    blas::sgemm(blas::kRowMajor, blas::kNo, blas::kYes, size, rest, depth, 1.0f, own, step, columns + last * stride,
                step, 1.0f, sums + first * leading_ + last, leading);
}

void SymmetricSum::add_rows(int64_t task, const float* rows, int64_t stride, int64_t count) {
  const auto [first, last] = panel(task);
  if (first == last) return;
  float* sums = in_place_ ? matrix_ : parts_.data() + split_.part(task) * leading_ * leading_;
  const int size = static_cast<int>(last - first), rest = static_cast<int>(dimension_ - last);
  const int depth = static_cast<int>(count), step = static_cast<int>(stride), leading = static_cast<int>(leading_);
  float* diagonal = sums + first * leading_ + first;
  blas::ssyrk(blas::kRowMajor, blas::kUpper, blas::kYes, size, depth, 1.0f, rows + first, step, 1.0f, diagonal,
              leading);
  if (rest > 0)
    blas::sgemm(blas::kRowMajor, blas::kYes, blas::kNo, size, rest, depth, 1.0f, rows + first, step, rows + last, step,
                1.0f, sums + first * leading_ + last, leading);
}

void SymmetricSum::finish() {
  // Tiles, because writes to the lower triangle are strided.
  constexpr int64_t kTile = 32;
  const int64_t tiles = (dimension_ + kTile - 1) / kTile, part = leading_ * leading_;
  const auto finish_tiles = [&](int64_t tile) {
    for (int64_t column = tile; column < tiles; ++column)
      for (int64_t i = tile * kTile; i < std::min((tile + 1) * kTile, dimension_); ++i)
        for (int64_t j = std::max(column * kTile, i); j < std::min((column + 1) * kTile, dimension_); ++j) {
          float sum = matrix_[i * stride_ + j];
          for (size_t p = 0; p < parts_.size(); p += part) sum += parts_[p + i * leading_ + j];
          matrix_[i * stride_ + j] = sum;
          matrix_[j * stride_ + i] = sum;
        }
  };
  if (split_.tasks() > 1) {
    parallel_for(tiles, finish_tiles);
  } else {
    for (int64_t tile = 0; tile < tiles; ++tile) finish_tiles(tile);
  }
}

}  // namespace ms_kfac
