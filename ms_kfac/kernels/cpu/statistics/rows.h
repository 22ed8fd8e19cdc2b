// Vectors stored or computed as rows: of dense layers, and of any layer in the reduce setting.
#pragma once

#include "images.h"

namespace ms_kfac {

// A source of rows, without the coordinate of a bias.
class Rows {
 public:
  virtual ~Rows() = default;
  virtual int64_t count() const = 0;
  virtual int64_t features() const = 0;
  // Rows [first, first + count), contiguous, features() numbers each. Returns a pointer into the array if it already
  // has this form, otherwise into `scratch`.
  virtual const float* read(int64_t first, int64_t count, std::vector<float>& scratch) const = 0;
};

// Sums over `locations` consecutive rows, times a factor. With one location and the factor 1 these are the rows
// themselves.
class StackedRows : public Rows {
 public:
  StackedRows(const Values& values, int64_t count, int64_t locations, int64_t features, float factor)
      : values_(values), count_(count), locations_(locations), features_(features), factor_(factor) {}
  int64_t count() const override { return count_; }
  int64_t features() const override { return features_; }
  const float* read(int64_t first, int64_t count, std::vector<float>& scratch) const override;

 private:
  Values values_;
  int64_t count_, locations_, features_;
  float factor_;
};

// Sums over the locations of a convolution, times a factor: one row per sample.
class SummedPatches : public Rows {
 public:
  SummedPatches(const Images& images, const Window& window, float factor)
      : images_(images), window_(window), factor_(factor) {}
  int64_t count() const override { return images_.samples; }
  int64_t features() const override { return images_.channels * window_.taps(); }
  const float* read(int64_t first, int64_t count, std::vector<float>& scratch) const override;

 private:
  Images images_;
  Window window_;
  float factor_;
};

// Other rows with the coordinate of a bias, one, where there is a bias; then times a factor.
class ScaledRows : public Rows {
 public:
  ScaledRows(const Rows& rows, bool bias, float factor) : rows_(rows), bias_(bias), factor_(factor) {}
  int64_t count() const override { return rows_.count(); }
  int64_t features() const override { return rows_.features() + (bias_ ? 1 : 0); }
  const float* read(int64_t first, int64_t count, std::vector<float>& scratch) const override;

 private:
  const Rows& rows_;
  bool bias_;
  float factor_;
};

// Sums of what each tap sees of an image with one channel, over all locations: taps() numbers.
void sum_taps(const float* image, int64_t height, int64_t width, const Window& window, float* sums,
              std::vector<float>& scratch);

}  // namespace ms_kfac
