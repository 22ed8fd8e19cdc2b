#include "second_moments.h"

#include "../linalg/symmetric_sum.h"
#include "../threads/threads.h"
#include "lag_plans.h"
#include "lagged_products.h"

namespace ms_kfac {
namespace {

// Floats per block of rows that is read and multiplied: 1 MB. The scratch memory is then still in the second-level
// cache when BLAS reads it.
constexpr int64_t kRowFloats = 256 << 10;

}  // namespace

void add_row_moment(const Rows& rows, bool bias, float* matrix, int64_t workers) {
  const int64_t features = rows.features(), stride = features + (bias ? 1 : 0), count = rows.count();
  const Split split(workers, 0.5 * count * features * features, count, features * features);
  SymmetricSum sum(matrix, stride, features, split);
  const int64_t at_once = std::max<int64_t>(kRowFloats / features, 64);
  std::vector<double> column_sums(bias ? split.parts * features : 0);
  parallel_for(split.tasks(), [&](int64_t task) {
    std::vector<float> scratch;
    const int64_t last = split.last(task, count);
    for (int64_t row = split.first(task, count); row < last; row += at_once) {
      const int64_t some = std::min(at_once, last - row);
      const float* values = rows.read(row, some, scratch);
      sum.add_rows(task, values, features, some);
      if (!bias || split.panel(task) != 0) continue;
      double* sums = column_sums.data() + split.part(task) * features;
      for (int64_t r = 0; r < some; ++r)
        for (int64_t feature = 0; feature < features; ++feature) sums[feature] += values[r * features + feature];
    }
  });
  sum.finish();
  if (!bias) return;
  for (int64_t feature = 0; feature < features; ++feature) {
    double total = 0;
    for (int64_t part = 0; part < split.parts; ++part) total += column_sums[part * features + feature];
    matrix[features * stride + feature] += static_cast<float>(total);
    matrix[feature * stride + features] = matrix[features * stride + feature];
  }
  matrix[features * stride + features] += static_cast<float>(count);
}

void add_unfolded_moment(const Columns& columns, float* matrix, int64_t workers) {
  const int64_t features = columns.features(), lines = columns.lines(), length = columns.line_length();
  const int64_t rows = round_up(features, kChannelBlock);
  const Split split(workers, 0.5 * lines * length * features * features, lines, rows * rows);
  SymmetricSum sum(matrix, features, features, split);
  const int64_t at_once = std::max<int64_t>(sum.columns_at_once() / length, 1);
  const int64_t stride = round_up(at_once * length, kPositionBlock);
  parallel_for(split.tasks(), [&](int64_t task) {
    std::vector<float> buffer(rows * stride), scratch;
    const int64_t last = split.last(task, lines);
    for (int64_t line = split.first(task, lines); line < last; line += at_once) {
      const int64_t some = std::min(at_once, last - line);
      columns.fill(line, some, buffer.data(), stride, scratch);
      sum.add_columns(task, buffer.data(), stride, round_up(some * length, kPositionBlock));
    }
  });
  sum.finish();
}

void add_patch_moment(const Images& images, const Window& window, bool bias, float* matrix, int64_t workers) {
  const Columns columns(images, window, bias);
  if (window.is_dense() && window.taps() > 1) {
    const std::shared_ptr<const LagMoments> moments = lag_plan(images.shape(), window, columns.cost());
    if (moments) return moments->add(images, bias, matrix, workers);
  }
  add_unfolded_moment(columns, matrix, workers);
}

}  // namespace ms_kfac
