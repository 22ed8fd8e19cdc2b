// Products of planes with shifted planes: the inner loop of second moments over positions.
#pragma once

#include <cstdint>
#include <vector>

namespace ms_kfac {

// Block sizes of channels and of positions. Buffers are padded with zeros to multiples of both.
constexpr int64_t kChannelBlock = 4;
constexpr int64_t kPositionBlock = 16;

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// One lag. add_lagged_products adds, to sums[c * channels + e] for first <= c < last and every e < channels,
//
//   sum over start <= r < start + length of planes[c * stride + r] * planes[e * stride + r + shift].
//
// `channels`, `first` and `last` are multiples of kChannelBlock, `length` is a multiple of kPositionBlock. A symmetric
// lag has shift 0. Only its blocks on and above the diagonal are added.
struct Lag {
  int64_t shift;
  float* sums;
  bool symmetric;
};

void add_lagged_products(const float* planes, int64_t stride, int64_t channels, int64_t first, int64_t last,
                         int64_t start, int64_t length, const std::vector<Lag>& lags);

}  // namespace ms_kfac
