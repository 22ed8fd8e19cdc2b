// The window of a convolution and its movement over images. Pairs are (height, width).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace ms_kfac {

using Pair = std::array<int64_t, 2>;

// The default window covers a single pixel.
struct Window {
  Pair kernel{1, 1}, stride{1, 1}, dilation{1, 1};
  // Zero padding before and after the image.
  Pair before{0, 0}, after{0, 0};

  int64_t taps() const { return kernel[0] * kernel[1]; }
  // Number of locations along an axis of an image of the given size.
  int64_t locations(int axis, int64_t size) const {
    const int64_t reach = dilation[axis] * (kernel[axis] - 1) + 1;
    return (size + before[axis] + after[axis] - reach) / stride[axis] + 1;
  }
  bool is_pointwise() const {
    const Pair ones{1, 1}, zeros{0, 0};
    return kernel == ones && stride == ones && before == zeros && after == zeros;
  }
  bool is_dense() const {
    const Pair ones{1, 1};
    return stride == ones && dilation == ones;
  }
  // Range [first, last) of locations along an axis at which a tap lies inside an image of the given size.
  Pair inside(int axis, int64_t tap, int64_t size) const {
    const int64_t start = before[axis] - tap * dilation[axis];
    const int64_t first = start > 0 ? (start + stride[axis] - 1) / stride[axis] : 0;
    const int64_t end = size + start;
    const int64_t last = end > 0 ? (end - 1) / stride[axis] + 1 : 0;
    const int64_t count = locations(axis, size);
    return {std::min(first, count), std::max(std::min(last, count), std::min(first, count))};
  }
  // Sets the padding of an axis so that the number of locations is the size divided by the stride, rounded up.
  void pad_to_same(int axis, int64_t size) {
    const int64_t outputs = (size + stride[axis] - 1) / stride[axis];
    const int64_t reach = dilation[axis] * (kernel[axis] - 1) + 1;
    const int64_t total = std::max<int64_t>((outputs - 1) * stride[axis] + reach - size, 0);
    before[axis] = total / 2;
    after[axis] = total - total / 2;
  }
  bool operator==(const Window& other) const {
    return kernel == other.kernel && stride == other.stride && dilation == other.dilation && before == other.before &&
           after == other.after;
  }
};

struct ImageShape {
  int64_t samples, channels, height, width;

  bool operator==(const ImageShape& other) const {
    return samples == other.samples && channels == other.channels && height == other.height && width == other.width;
  }
};

}  // namespace ms_kfac
