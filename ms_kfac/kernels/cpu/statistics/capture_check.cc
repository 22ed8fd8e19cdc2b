#include "capture_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../../interface/signs.h"
#include "../linalg/inner_product.h"
#include "../threads/multiversion.h"
#include "../threads/threads.h"

namespace ms_kfac {
namespace {

// Numbers per read, so that converted ones stay in or near the first-level cache.
constexpr int64_t kReadFloats = 16 << 10;
// Numbers that justify another thread: some tens of microseconds of work.
constexpr int64_t kFloatsPerThread = 64 << 10;
constexpr int64_t kRowsAtOnce = 256;
// Positions per block: all taps are added to a block before the next one, so its sums stay in the first-level cache.
constexpr int64_t kPositions = 4 << 10;

MS_KFAC_CLONES float signed_sum(const float* values, const float* signs, int64_t count) {
  constexpr int64_t kLanes = 32;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += signs[i + lane] * values[i + lane];
  float sum = 0;
  for (; i < count; ++i) sum += signs[i] * values[i];
  for (float lane : lanes) sum += lane;
  return sum;
}

// Adds sum over k of signs[k] values[offsets[k] + i] to sums[i].
MS_KFAC_CLONES void add_signed(const float* __restrict values, const int64_t* offsets, const float* signs,
                               int64_t count, int64_t length, float* __restrict sums) {
  int64_t k = 0;
  // Four at a time, because every iteration reads and writes the sums.
  for (; k + 4 <= count; k += 4) {
    const float s0 = signs[k], s1 = signs[k + 1], s2 = signs[k + 2], s3 = signs[k + 3];
    const float *v0 = values + offsets[k], *v1 = values + offsets[k + 1], *v2 = values + offsets[k + 2],
                *v3 = values + offsets[k + 3];
    for (int64_t i = 0; i < length; ++i) sums[i] += (s0 * v0[i] + s1 * v1[i]) + (s2 * v2[i] + s3 * v3[i]);
  }
  for (; k < count; ++k) {
    const float s = signs[k];
    const float* v = values + offsets[k];
    for (int64_t i = 0; i < length; ++i) sums[i] += s * v[i];
  }
}

std::vector<float> signs_of(SignAxis axis, int64_t first, int64_t count, float factor = 1.0f) {
  std::vector<float> signs(count);
  for (int64_t i = 0; i < count; ++i) signs[i] = factor * sign(axis, static_cast<uint32_t>(first + i));
  return signs;
}

// The sums over the samples of one group.
struct Sums {
  double uv = 0, uu = 0, vv = 0;

  void add(const float* u, const float* v, int64_t count) {
    uv += inner_product(u, v, count);
    uu += inner_product(u, u, count);
    vv += inner_product(v, v, count);
  }
};

// Adds up the signed channels of a sample.
class ChannelSums {
 public:
  ChannelSums(const Images& images, const std::vector<float>& signs) : images_(images), signs_(signs) {
    const int64_t pixels = images.height * images.width;
    offsets_.resize(std::min(std::max<int64_t>(kReadFloats / pixels, 4), images.channels));
    for (size_t c = 0; c < offsets_.size(); ++c) offsets_[c] = static_cast<int64_t>(c) * pixels;
  }

  void add(int64_t sample, float* sums, std::vector<float>& scratch) const {
    const int64_t pixels = images_.height * images_.width, at_once = static_cast<int64_t>(offsets_.size());
    for (int64_t c = 0; c < images_.channels; c += at_once) {
      const int64_t some = std::min(at_once, images_.channels - c);
      const float* values = images_.values.read(images_.at(sample, c, 0), some * pixels, scratch);
      if (pixels == 1)
        sums[0] += signed_sum(values, signs_.data() + c, some);
      else
        add_signed(values, offsets_.data(), signs_.data() + c, some, pixels, sums);
    }
  }

 private:
  Images images_;
  std::vector<float> signs_;
  std::vector<int64_t> offsets_;
};

// Signed sums over the taps of a window, for an image of one channel.
//
// The padded image is stored as one plane per remainder of the row and column indices modulo the stride. In a plane the
// next location is the next number for any stride, so one loop covers all locations. The results between the rows of
// locations are discarded.
class TapSums {
 public:
  TapSums(const Images& images, const Window& window, float start)
      : image_height_(images.height),
        image_width_(images.width),
        window_(window),
        start_(start),
        heights_(window.locations(0, images.height)),
        widths_(window.locations(1, images.width)),
        rows_(extent(0, heights_)),
        columns_(extent(1, widths_)),
        length_((heights_ - 1) * columns_ + widths_) {
    const auto [down, right] = window.stride;
    planes_.resize(down * right * rows_ * columns_);
    sums_.resize(length_);
    for (int64_t i = 0; i < window.kernel[0]; ++i)
      for (int64_t j = 0; j < window.kernel[1]; ++j) {
        const int64_t row = i * window.dilation[0], column = j * window.dilation[1];
        const int64_t plane = row % down * right + column % right;
        offsets_.push_back((plane * rows_ + row / down) * columns_ + column / right);
        signs_.push_back(sign(kTaps, static_cast<uint32_t>(i * window.kernel[1] + j)));
      }
  }

  void compute(const float* image, float* sums) {
    fill(image);
    std::fill(sums_.begin(), sums_.end(), start_);
    const auto taps = static_cast<int64_t>(signs_.size());
    for (int64_t first = 0; first < length_; first += kPositions)
      add_signed(planes_.data() + first, offsets_.data(), signs_.data(), taps, std::min(kPositions, length_ - first),
                 sums_.data() + first);
    for (int64_t row = 0; row < heights_; ++row)
      std::memcpy(sums + row * widths_, sums_.data() + row * columns_, widths_ * sizeof(float));
  }

 private:
  // Size of a plane along an axis. It covers everything that the window sees.
  int64_t extent(int axis, int64_t locations) const {
    return locations + window_.dilation[axis] * (window_.kernel[axis] - 1) / window_.stride[axis];
  }

  // The padding stays zero.
  void fill(const float* image) {
    const auto [down, right] = window_.stride;
    for (int64_t row = 0; row < image_height_; ++row) {
      const int64_t padded = row + window_.before[0];
      if (padded / down >= rows_) return;
      for (int64_t phase = 0; phase < right; ++phase) {
        const int64_t plane = padded % down * right + phase;
        float* to = planes_.data() + (plane * rows_ + padded / down) * columns_;
        // The part of this phase's numbers that is not padding.
        const int64_t shift = phase - window_.before[1], first = (right - 1 - shift) / right;
        const int64_t last = std::min(columns_, (image_width_ - shift + right - 1) / right);
        const float* from = image + row * image_width_;
        if (right == 1) {
          std::copy(from + first + shift, from + std::max(first, last) + shift, to + first);
          continue;
        }
        for (int64_t q = first; q < last; ++q) to[q] = from[q * right + shift];
      }
    }
  }

  int64_t image_height_, image_width_;
  Window window_;
  float start_;
  int64_t heights_, widths_, rows_, columns_, length_;
  std::vector<float> planes_, sums_, signs_;
  std::vector<int64_t> offsets_;
};

// Calls sum(first, last, sums of the part, one per group) for parts of the samples. Adds the parts in a fixed order.
template <typename Sum>
std::vector<Sums> over_samples(int64_t samples, int64_t groups, int64_t numbers, Sum sum) {
  const int64_t wanted = std::clamp<int64_t>(numbers / kFloatsPerThread, 1, threads());
  const int64_t parts = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(samples, 1));
  std::vector<Sums> sums(parts * groups);
  parallel_for(parts, [&](int64_t part) {
    sum(part * samples / parts, (part + 1) * samples / parts, sums.data() + part * groups);
  });
  for (int64_t i = groups; i < parts * groups; ++i) {
    Sums& total = sums[i % groups];
    total.uv += sums[i].uv;
    total.uu += sums[i].uu;
    total.vv += sums[i].vv;
  }
  sums.resize(groups);
  return sums;
}

// The sums over rows, with v from the signed gradients. read_u(first, count, u, scratch) writes u of some rows, from
// `width` numbers each.
template <typename ReadU>
std::vector<Sums> over_rows(const Rows& gradients, const std::vector<float>& signs, int64_t width, ReadU read_u) {
  const int64_t e = gradients.features(), count = gradients.count();
  const int64_t at_once = std::clamp<int64_t>(kReadFloats / std::max<int64_t>({width, e, 1}), 1, kRowsAtOnce);
  return over_samples(count, 1, count * (width + e), [&](int64_t first, int64_t last, Sums* sums) {
    std::vector<float> u(at_once), v(at_once), scratch;
    for (int64_t row = first; row < last; row += at_once) {
      const int64_t some = std::min(at_once, last - row);
      read_u(row, some, u.data(), scratch);
      const float* dout = gradients.read(row, some, scratch);
      for (int64_t r = 0; r < some; ++r) v[r] = signed_sum(dout + r * e, signs.data(), e);
      sums->add(u.data(), v.data(), some);
    }
  });
}

std::vector<Sums> dense(const LayerBatch& batch) {
  const LayerSide inputs = batch.inputs(0), gradients = batch.gradients(0);
  const int64_t d = inputs.rows->features();
  const std::vector<float> column_signs = signs_of(kColumns, 0, d, sign(kTaps, 0));
  const float start = inputs.bias ? 1.0f : 0.0f;
  const auto read_u = [&](int64_t first, int64_t count, float* u, std::vector<float>& scratch) {
    const float* x = inputs.rows->read(first, count, scratch);
    for (int64_t r = 0; r < count; ++r) u[r] = start + signed_sum(x + r * d, column_signs.data(), d);
  };
  return over_rows(*gradients.rows, signs_of(kRows, 0, gradients.rows->features()), d, read_u);
}

std::vector<Sums> convolution(const LayerBatch& batch) {
  const Images x = batch.inputs(0).images, dout = batch.gradients(0).images;
  const Window window = batch.inputs(0).window;
  const int64_t groups = batch.groups(), pixels = x.height * x.width, locations = dout.height * dout.width;
  const bool pointwise = window.is_pointwise();
  const float start = batch.inputs(0).bias ? 1.0f : 0.0f;
  // The sign of a single tap is folded into the columns, because pointwise windows skip TapSums::compute.
  const std::vector<float> column_signs = signs_of(kColumns, 0, x.channels, pointwise ? sign(kTaps, 0) : 1.0f);
  std::vector<ChannelSums> inputs, gradients;
  for (int64_t group = 0; group < groups; ++group) {
    inputs.emplace_back(batch.inputs(group).images, column_signs);
    gradients.emplace_back(batch.gradients(group).images, signs_of(kRows, group * dout.channels, dout.channels));
  }
  const int64_t numbers = groups * (x.channels * pixels + dout.channels * locations + window.taps() * locations);
  return over_samples(x.samples, groups, x.samples * numbers, [&](int64_t first, int64_t last, Sums* sums) {
    TapSums taps(x, window, start);
    std::vector<float> z(pixels), u(locations), v(locations), scratch;
    for (int64_t sample = first; sample < last; ++sample)
      for (int64_t group = 0; group < groups; ++group) {
        std::vector<float>& input = pointwise ? u : z;
        std::fill(input.begin(), input.end(), pointwise ? start : 0.0f);
        inputs[group].add(sample, input.data(), scratch);
        if (!pointwise) taps.compute(z.data(), u.data());
        std::fill(v.begin(), v.end(), 0.0f);
        gradients[group].add(sample, v.data(), scratch);
        sums[group].add(u.data(), v.data(), locations);
      }
  });
}

}  // namespace

CaptureCheck capture_check(const LayerGeometry& geometry, const FloatArray& x, const FloatArray& dout) {
  LayerGeometry delivered = geometry;
  delivered.reduce = false;
  delivered.mean_reduction = false;
  delivered.gradient_scale = 1.0f;
  const LayerBatch batch(delivered, x, dout);
  double product = 0, scale = 0;
  for (const Sums& sums : geometry.convolution ? convolution(batch) : dense(batch)) {
    product += sums.uv;
    scale += std::sqrt(sums.uu) * std::sqrt(sums.vv);
  }
  return {static_cast<float>(product), static_cast<float>(scale)};
}

CaptureCheck capture_check(const Ids& ids, const FloatArray& dout) {
  const int64_t d = dout.shape.back();
  const StackedRows gradients(Values(dout.data, dout.type), ids.samples * ids.locations, 1, d, 1.0f);
  const auto read_u = [&](int64_t first, int64_t count, float* u, std::vector<float>&) {
    for (int64_t r = 0; r < count; ++r) {
      const int32_t id = ids.values[first + r];
      u[r] = ids.known(id) ? sign(kRows, static_cast<uint32_t>(id)) : 0.0f;
    }
  };
  const Sums found = over_rows(gradients, signs_of(kColumns, 0, d, sign(kTaps, 0)), 1, read_u)[0];
  return {static_cast<float>(found.uv), static_cast<float>(std::sqrt(found.uu) * std::sqrt(found.vv))};
}

}  // namespace ms_kfac
