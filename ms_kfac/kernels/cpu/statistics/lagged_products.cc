#include "lagged_products.h"

#include <algorithm>
#include <cstring>

namespace ms_kfac {
namespace {

// Number of positions that are processed for all lags before the next ones. Twice 4 channels of them stay in the
// first-level cache.
constexpr int64_t kSegment = 1024;

#define MS_KFAC_INLINE inline __attribute__((always_inline))

template <int kLanes>
struct Vector {
  typedef float Type __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
};

template <int kLanes>
MS_KFAC_INLINE float lane_sum(const float* lanes) {
  if constexpr (kLanes == 1) {
    return lanes[0];
  } else {
    typename Vector<kLanes / 2>::Type low, high;
    std::memcpy(&low, lanes, sizeof low);
    std::memcpy(&high, lanes + kLanes / 2, sizeof high);
    low += high;
    float halves[kLanes / 2];
    std::memcpy(halves, &low, sizeof halves);
    return lane_sum<kLanes / 2>(halves);
  }
}

// Multiplies four channels by kColumns channels over one segment. Every accumulator has kLanes partial sums.
template <int kLanes, int kColumns>
MS_KFAC_INLINE void add_block(const float* a, const float* b, int64_t stride, int64_t length, float* sums,
                              int64_t channels) {
  using V = typename Vector<kLanes>::Type;
  V partial[kChannelBlock][kColumns] = {};
  for (int64_t r = 0; r < length; r += kLanes) {
    V left[kChannelBlock];
    for (int c = 0; c < kChannelBlock; ++c) left[c] = *reinterpret_cast<const V*>(a + c * stride + r);
    for (int e = 0; e < kColumns; ++e) {
      const V right = *reinterpret_cast<const V*>(b + e * stride + r);
      for (int c = 0; c < kChannelBlock; ++c) partial[c][e] += left[c] * right;
    }
  }
  for (int c = 0; c < kChannelBlock; ++c)
    for (int e = 0; e < kColumns; ++e)
      sums[c * channels + e] += lane_sum<kLanes>(reinterpret_cast<const float*>(&partial[c][e]));
}

template <int kLanes, int kColumns>
MS_KFAC_INLINE void add_all(const float* planes, int64_t stride, int64_t channels, int64_t first, int64_t last,
                            int64_t start, int64_t length, const Lag* lags, size_t count) {
  for (int64_t done = 0; done < length; done += kSegment) {
    const int64_t some = std::min(kSegment, length - done);
    for (int64_t c = first; c < last; c += kChannelBlock) {
      const float* a = planes + c * stride + start + done;
      for (int64_t e = 0; e < channels; e += kChannelBlock)
        for (size_t lag = 0; lag < count; ++lag) {
          if (lags[lag].symmetric && e < c) continue;
          for (int64_t column = e; column < e + kChannelBlock; column += kColumns)
            add_block<kLanes, kColumns>(a, planes + column * stride + start + done + lags[lag].shift, stride, some,
                                        lags[lag].sums + c * channels + column, channels);
        }
    }
  }
}

// Explicit versions instead of those of clones.h, because the lanes and columns of a block depend on the processor's
// registers.
using AddAll = void (*)(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const Lag*, size_t);

void add_all_anywhere(const float* planes, int64_t stride, int64_t channels, int64_t first, int64_t last, int64_t start,
                      int64_t length, const Lag* lags, size_t count) {
  add_all<4, 2>(planes, stride, channels, first, last, start, length, lags, count);
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) void add_all_avx2(const float* planes, int64_t stride, int64_t channels,
                                                      int64_t first, int64_t last, int64_t start, int64_t length,
                                                      const Lag* lags, size_t count) {
  add_all<8, 2>(planes, stride, channels, first, last, start, length, lags, count);
}

__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma"))) void add_all_avx512(const float* planes,
                                                                                      int64_t stride, int64_t channels,
                                                                                      int64_t first, int64_t last,
                                                                                      int64_t start, int64_t length,
                                                                                      const Lag* lags, size_t count) {
  add_all<16, 4>(planes, stride, channels, first, last, start, length, lags, count);
}
#endif

AddAll best_of_processor() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return add_all_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return add_all_avx2;
#endif
  return add_all_anywhere;
}

}  // namespace

void add_lagged_products(const float* planes, int64_t stride, int64_t channels, int64_t first, int64_t last,
                         int64_t start, int64_t length, const std::vector<Lag>& lags) {
  static const AddAll add = best_of_processor();
  add(planes, stride, channels, first, last, start, length, lags.data(), lags.size());
}

}  // namespace ms_kfac
