// TKFAC.
#include "trace_restricted_moments.h"

#include <cmath>
#include <cstring>

#include "../linalg/symmetric_sum.h"
#include "../threads/multiversion.h"
#include "../threads/threads.h"
#include "lagged_products.h"

namespace ms_kfac {
namespace {

// Adds the squares of one feature of all columns.
MS_KFAC_CLONES void add_squares(const float* values, int64_t count, float* norms) {
  for (int64_t t = 0; t < count; ++t) norms[t] += values[t] * values[t];
}

MS_KFAC_CLONES void scale(float* values, int64_t count, const float* factors) {
  for (int64_t t = 0; t < count; ++t) values[t] *= factors[t];
}

MS_KFAC_CLONES float squared_norm(const float* values, int64_t count) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane] * values[i + lane];
  float sum = 0;
  for (; i < count; ++i) sum += values[i] * values[i];
  for (float lane : lanes) sum += lane;
  return sum;
}

// Some vectors of one side, copied so that a task can scale them.
class Vectors {
 public:
  Vectors(const LayerSide& side, SymmetricSum& sum)
      : side_(side), sum_(sum), columns_(side.images, side.window, side.bias), features_(side.features()) {}

  // Reads `count` rows into the buffer, with their squared norms.
  void read_rows(int64_t first, int64_t count) {
    const int64_t width = side_.rows->features();
    const float* values = side_.rows->read(first, count, scratch_);
    buffer_.resize(count * features_);
    norms.resize(count);
    for (int64_t row = 0; row < count; ++row) {
      float* to = buffer_.data() + row * features_;
      std::memcpy(to, values + row * width, width * sizeof(float));
      if (side_.bias) to[width] = 1.0f;
      norms[row] = squared_norm(to, features_);
    }
  }
  void add_rows(int64_t task, int64_t count, const std::vector<float>& weights) {
    for (int64_t row = 0; row < count; ++row)
      for (int64_t i = 0; i < features_; ++i) buffer_[row * features_ + i] *= weights[row];
    sum_.add_rows(task, buffer_.data(), features_, count);
  }

  void read_columns(int64_t first, int64_t lines, int64_t stride) {
    buffer_.resize(round_up(features_, kChannelBlock) * stride);
    columns_.fill(first, lines, buffer_.data(), stride, scratch_);
    norms.assign(stride, 0.0f);
    for (int64_t i = 0; i < features_; ++i) add_squares(buffer_.data() + i * stride, stride, norms.data());
  }
  void add_columns(int64_t task, int64_t count, int64_t stride, const std::vector<float>& weights) {
    for (int64_t i = 0; i < features_; ++i) scale(buffer_.data() + i * stride, count, weights.data());
    sum_.add_columns(task, buffer_.data(), stride, count);
  }

  // x|^2 of the vectors in the buffer.
  std::vector<float> norms;

 private:
  const LayerSide& side_;
  SymmetricSum& sum_;
  Columns columns_;
  int64_t features_;
  std::vector<float> buffer_, scratch_;
};

}  // namespace

double add_trace_restricted(const LayerSide& inputs, const LayerSide& gradients, float* Phi, float* Psi,
                            int64_t workers) {
  const int64_t d = inputs.features(), e = gradients.features();
  const bool rows = inputs.rows != nullptr;
  const Columns columns(inputs.images, inputs.window, inputs.bias);
  const int64_t length = rows ? 1 : columns.line_length(), lines = rows ? inputs.rows->count() : columns.lines();
  const Split split(workers, 0.5 * lines * length * (d * d + e * e), lines, d * d + e * e);
  SymmetricSum sum_of_inputs(Phi, d, d, split), sum_of_gradients(Psi, e, e, split);
  const int64_t at_once =
      std::max<int64_t>(std::min(sum_of_inputs.columns_at_once(), sum_of_gradients.columns_at_once()) / length, 1);
  const int64_t stride = round_up(at_once * length, kPositionBlock);
  std::vector<double> deltas(split.tasks());
  parallel_for(split.tasks(), [&](int64_t task) {
    Vectors a(inputs, sum_of_inputs), g(gradients, sum_of_gradients);
    const int64_t last = split.last(task, lines);
    for (int64_t line = split.first(task, lines); line < last; line += at_once) {
      const int64_t some = std::min(at_once, last - line), count = some * length;
      for (Vectors* side : {&a, &g}) rows ? side->read_rows(line, some) : side->read_columns(line, some, stride);
      for (int64_t t = 0; t < count; ++t) {
        deltas[task] += static_cast<double>(a.norms[t]) * g.norms[t];
        // Roots, because both sides of an outer product are scaled. So the product stays symmetric.
        a.norms[t] = std::sqrt(a.norms[t]);
        g.norms[t] = std::sqrt(g.norms[t]);
      }
      if (rows) {
        a.add_rows(task, some, g.norms);
        g.add_rows(task, some, a.norms);
      } else {
        const int64_t whole = round_up(count, kPositionBlock);
        a.add_columns(task, whole, stride, g.norms);
        g.add_columns(task, whole, stride, a.norms);
      }
    }
  });
  sum_of_inputs.finish();
  sum_of_gradients.finish();
  // All panels of a part see the same vectors.
  double delta = 0;
  for (int64_t task = 0; task < split.tasks(); task += split.panels) delta += deltas[task];
  return delta;
}

}  // namespace ms_kfac
