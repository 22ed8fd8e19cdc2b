// EKFAC.
#include "eigenbasis_moments.h"

#include <cstring>

#include "../linalg/blas.h"
#include "../linalg/symmetric_sum.h"
#include "../threads/multiversion.h"
#include "../threads/threads.h"
#include "lagged_products.h"

namespace ms_kfac {
namespace {

// Floats per block of written-out vectors: 1 MB, so that they are still in the second-level cache when BLAS reads them.
constexpr int64_t kReadFloats = 256 << 10;
// Smallest number of rows of a product with Q_A, if available: BLAS copies Q_A again for every product.
constexpr int64_t kProductRows = 256;

MS_KFAC_CLONES void square(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] *= values[i];
}

MS_KFAC_CLONES void add_squares(const float* values, int64_t count, float* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += values[i] * values[i];
}

// A matrix or the transpose of a matrix. Its stored rows are `stride` apart.
struct Matrix {
  const float* data;
  int64_t stride;
  bool transposed = false;

  Matrix transpose() const { return {data, stride, !transposed}; }
};

// product = left right + beta product, with left (rows, depth) and right (depth, columns).
void multiply(const Matrix& left, const Matrix& right, int64_t rows, int64_t columns, int64_t depth, float beta,
              float* product, int64_t stride) {
  const auto flag = [](const Matrix& matrix) { return matrix.transposed ? blas::kYes : blas::kNo; };
  blas::sgemm(blas::kRowMajor, flag(left), flag(right), static_cast<int>(rows), static_cast<int>(columns),
              static_cast<int>(depth), 1.0f, left.data, static_cast<int>(left.stride), right.data,
              static_cast<int>(right.stride), beta, product, static_cast<int>(stride));
}

// The vectors of one side, read some lines at a time. A line is one row, or the columns of one row of locations.
class Vectors {
 public:
  explicit Vectors(const LayerSide& side)
      : side_(side), columns_(side.images, side.window, side.bias), features_(side.features()) {}

  int64_t features() const { return features_; }
  int64_t lines() const { return side_.rows ? side_.rows->count() : columns_.lines(); }
  int64_t line_length() const { return side_.rows ? 1 : columns_.line_length(); }

  // A matrix (count * line_length(), features()), valid until the next call.
  Matrix read(int64_t first, int64_t count) {
    if (side_.rows) return read_rows(first, count);
    const int64_t stride = round_up(count * line_length(), kPositionBlock);
    grow(features_ * stride);
    columns_.fill(first, count, buffer_.data(), stride, scratch_);
    return {buffer_.data(), stride, true};
  }

 private:
  Matrix read_rows(int64_t first, int64_t count) {
    const float* values = side_.rows->read(first, count, scratch_);
    if (!side_.bias) return {values, features_};
    const int64_t width = features_ - 1;
    grow(count * features_);
    for (int64_t row = 0; row < count; ++row) {
      float* to = buffer_.data() + row * features_;
      std::memcpy(to, values + row * width, width * sizeof(float));
      to[width] = 1.0f;
    }
    return {buffer_.data(), features_};
  }
  void grow(int64_t size) {
    if (static_cast<int64_t>(buffer_.size()) < size) buffer_.resize(size);
  }

  const LayerSide& side_;
  Columns columns_;
  int64_t features_;
  std::vector<float> buffer_, scratch_;
};

// With one location per sample the sum is a single product of squares, ((g Q_G)^2)^T (a Q_A)^2. It needs no per-sample
// gradients. The threads split the columns of the matrices.
void add_single_locations(const LayerSide& inputs, const LayerSide& gradients, const float* Q_A, const float* Q_G,
                          float* sums, int64_t workers) {
  Vectors a(inputs), g(gradients);
  const int64_t d = a.features(), e = g.features(), samples = a.lines();
  const int64_t at_once = std::min(samples, std::max(kReadFloats / (d + e), kProductRows));
  const double work = static_cast<double>(at_once) * (d * d + e * e + d * e);
  const int64_t panels = Split(workers, work, d, 1).parts;
  std::vector<float> squares_a(at_once * d), squares_g(at_once * e);
  for (int64_t sample = 0; sample < samples; sample += at_once) {
    const int64_t some = std::min(at_once, samples - sample);
    const Matrix rows_a = a.read(sample, some), rows_g = g.read(sample, some);
    const auto project = [&](const Matrix& rows, const float* basis, int64_t features, int64_t panel, float* squares) {
      const int64_t first = panel * features / panels, width = (panel + 1) * features / panels - first;
      multiply(rows, {basis + first, features}, some, width, features, 0.0f, squares + first, features);
      for (int64_t row = 0; row < some; ++row) square(squares + row * features + first, width);
    };
    parallel_for(panels, [&](int64_t panel) { project(rows_g, Q_G, e, panel, squares_g.data()); });
    parallel_for(panels, [&](int64_t panel) {
      project(rows_a, Q_A, d, panel, squares_a.data());
      const int64_t first = panel * d / panels, width = (panel + 1) * d / panels - first;
      multiply({squares_g.data(), e, true}, {squares_a.data() + first, d}, e, width, some, 1.0f, sums + first, d);
    });
  }
}

// The per-sample gradients of one task. A side is projected before the sum over locations if its locations are fewer
// than the features of the other side. Otherwise it is projected after the sum.
class SampleGradients {
 public:
  SampleGradients(const LayerSide& inputs, const LayerSide& gradients, int64_t samples, const float* Q_A,
                  const float* Q_G)
      : a_(inputs),
        g_(gradients),
        basis_a_{Q_A, a_.features()},
        basis_g_{Q_G, g_.features()},
        d_(a_.features()),
        e_(g_.features()),
        lines_(a_.lines() / samples),
        locations_(lines_ * a_.line_length()),
        inputs_first_(locations_ < e_),
        gradients_first_(locations_ < d_) {}

  // Multiply-adds per sample.
  double work() const {
    const double T = locations_, d = d_, e = e_;
    return T * d * e + std::min(T, e) * d * d + std::min(T, d) * e * e;
  }

  void add(int64_t first, int64_t last, float* sums) {
    const int64_t rows = inputs_first_ ? locations_ : e_;
    const int64_t at_once = std::min(last - first, std::max<int64_t>(kProductRows / rows, 1));
    projected_.resize(at_once * rows * d_);
    for (int64_t sample = first; sample < last; sample += at_once) {
      const int64_t some = std::min(at_once, last - sample);
      const Matrix unprojected = inputs_first_ ? a_.read(sample * lines_, some * lines_) : sums_over(sample, some);
      multiply(unprojected, basis_a_, some * rows, d_, d_, 0.0f, projected_.data(), d_);
      for (int64_t index = 0; index < some; ++index)
        add_squares(in_basis(sample + index, projected_.data() + index * rows * d_), e_ * d_, sums);
    }
  }

 private:
  // g or g Q_G, as (count * line length, e).
  Matrix read_gradients(int64_t line, int64_t count) {
    const Matrix rows = g_.read(line, count);
    if (!gradients_first_) return rows;
    const int64_t locations = count * g_.line_length();
    rotated_.resize(std::max<size_t>(rotated_.size(), locations * e_));
    multiply(rows, basis_g_, locations, e_, e_, 0.0f, rotated_.data(), e_);
    return {rotated_.data(), e_};
  }

  // Stacked sums over the locations of some samples: (count * e, d).
  Matrix sums_over(int64_t first, int64_t count) {
    stacked_.resize(std::max<size_t>(stacked_.size(), count * e_ * d_));
    const int64_t length = a_.line_length();
    const int64_t at_once = std::clamp<int64_t>(kReadFloats / (length * (d_ + e_)), 1, lines_);
    for (int64_t index = 0; index < count; ++index)
      for (int64_t line = 0; line < lines_; line += at_once) {
        const int64_t some = std::min(at_once, lines_ - line), from = (first + index) * lines_ + line;
        const Matrix gradients = read_gradients(from, some).transpose();
        multiply(gradients, a_.read(from, some), e_, d_, some * length, line > 0 ? 1.0f : 0.0f,
                 stacked_.data() + index * e_ * d_, d_);
      }
    return {stacked_.data(), d_};
  }

  // The remaining products that turn one sample's matrix into Q_G^T W Q_A.
  const float* in_basis(int64_t sample, const float* matrix) {
    if (inputs_first_) {
      summed_.resize(e_ * d_);
      const Matrix gradients = read_gradients(sample * lines_, lines_).transpose();
      multiply(gradients, {matrix, d_}, e_, d_, locations_, 0.0f, summed_.data(), d_);
      matrix = summed_.data();
    }
    if (gradients_first_) return matrix;
    in_basis_.resize(e_ * d_);
    multiply(basis_g_.transpose(), {matrix, d_}, e_, d_, e_, 0.0f, in_basis_.data(), d_);
    return in_basis_.data();
  }

  Vectors a_, g_;
  Matrix basis_a_, basis_g_;
  int64_t d_, e_, lines_, locations_;
  bool inputs_first_, gradients_first_;
  std::vector<float> projected_, rotated_, stacked_, summed_, in_basis_;
};

}  // namespace

void add_eigenbasis_moments(const LayerSide& inputs, const LayerSide& gradients, int64_t samples, const float* Q_A,
                            const float* Q_G, float* sums, int64_t workers) {
  const Vectors vectors(inputs);
  if (samples < 1) return;
  if (vectors.lines() * vectors.line_length() == samples)
    return add_single_locations(inputs, gradients, Q_A, Q_G, sums, workers);
  const int64_t size = inputs.features() * gradients.features();
  const double work = samples * SampleGradients(inputs, gradients, samples, Q_A, Q_G).work();
  const int64_t parts = Split(workers, work, samples, 1).parts;
  // The first part adds to `sums` directly.
  std::vector<float> others((parts - 1) * size);
  parallel_for(parts, [&](int64_t part) {
    SampleGradients some(inputs, gradients, samples, Q_A, Q_G);
    some.add(part * samples / parts, (part + 1) * samples / parts,
             part == 0 ? sums : others.data() + (part - 1) * size);
  });
  for (int64_t part = 0; part + 1 < parts; ++part)
    for (int64_t i = 0; i < size; ++i) sums[i] += others[part * size + i];
}

}  // namespace ms_kfac
