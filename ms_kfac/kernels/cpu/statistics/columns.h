// The patches of a convolution, unfolded into columns (im2col), some lines at a time.
#pragma once

#include "images.h"

namespace ms_kfac {

// Columns of features in the order (channel, kernel row, kernel column). With a bias the last feature is one. A line is
// the columns of one sample and one row of locations.
class Columns {
 public:
  Columns(const Images& images, const Window& window, bool bias);

  int64_t features() const { return features_; }
  int64_t lines() const { return images_.samples * heights_; }
  int64_t line_length() const { return widths_; }
  // Estimated time in nanoseconds on one core of writing all columns and summing their outer products.
  double cost() const;

  // Writes lines [first, first + count) next to each other: feature f of column t to buffer[f * stride + t]. Fills up
  // to the next multiple of kPositionBlock with columns of zeros.
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
