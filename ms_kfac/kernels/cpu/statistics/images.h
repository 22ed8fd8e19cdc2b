// Images in an array.
#pragma once

#include "../../interface/window.h"
#include "values.h"

namespace ms_kfac {

// Some channels of a batch: value (n, c, h, w) is at offset + n * sample_stride + (c * height + h) * width + w.
struct Images {
  Values values;
  int64_t samples, channels, height, width;
  int64_t sample_stride, offset;

  ImageShape shape() const { return {samples, channels, height, width}; }
  int64_t at(int64_t sample, int64_t channel, int64_t row) const {
    return offset + sample * sample_stride + (channel * height + row) * width;
  }
};

}  // namespace ms_kfac
