// Patches of a convolution as columns, some at a time.
#pragma once

#include "images.h"

namespace ms_kfac {

// Columns of features in the order (channel, kernel row, kernel column), with a last feature of one for a bias. A line
// is the columns of one sample and one row of locations.
class Columns {
 public:
  Columns(const Images& images, const Window& window, bool bias);

  int64_t features() const { return features_; }
  int64_t lines() const { return images_.samples * heights_; }
  int64_t line_length() const { return widths_; }
  // An estimate of the time that it takes to write all columns and to sum their outer products, in nanoseconds of one
  // core.
  double cost() const;

  // Writes lines [first, first + count) side by side: feature f of column t to buffer[f * stride + t]. Columns up to
  // the next multiple of kPositionBlock become zeros.
  void fill(int64_t first, int64_t count, float* buffer, int64_t stride, std::vector<float>& scratch) const;

 private:
  void fill_sample(int64_t sample, int64_t first, int64_t last, float* buffer, int64_t stride,
                   std::vector<float>& scratch) const;

  Images images_;
  Window window_;
  bool bias_, pointwise_;
  int64_t heights_, widths_, features_;
};

}  // namespace ms_kfac
