// The normalized inputs x_hat = (x - mean) factor of a normalization layer.
//
// Numbers that share a mean and a factor are an entry. Its sums are taken about its first number, so that a large mean
// does not cancel. They are split into parts where there are few entries.
#pragma once

#include <algorithm>

#include "../../interface/arguments.h"
#include "../../interface/normalization_geometry.h"
#include "../tile/block_sum.h"
#include "../tile/divisor.h"
#include "../tile/numbers.h"
#include "../tile/tile.h"

namespace ms_kfac {

constexpr int kWarps = kThreads / 32;

struct Affine {
  float mean, factor;
};

struct SharedSums {
  double sum, squares;
};

// Adds at(i) - shift and its square for i = first, first + step, ... < last. Eight numbers at a time in float32, so
// that their loads overlap and few additions are in float64.
template <typename At>
__device__ SharedSums shifted_sums(float shift, int64_t first, int64_t last, int64_t step, const At& at) {
  constexpr int kAtOnce = 8;
  SharedSums sums{0, 0};
  int64_t i = first;
  for (; i + (kAtOnce - 1) * step < last; i += kAtOnce * step) {
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const float shifted = at(i + k * step) - shift;
      sum += shifted;
      squares = fmaf(shifted, shifted, squares);
    }
    sums.sum += sum;
    sums.squares += squares;
  }
  for (; i < last; i += step) {
    const double shifted = at(i) - shift;
    sums.sum += shifted;
    sums.squares += shifted * shifted;
  }
  return sums;
}

struct NormalizedInputs {
  Numbers x;
  SharedMoments moments;
  bool centered;
  float epsilon;
  // The layout (N, T, C) instead of (N, C, T).
  bool rows;
  int samples, locations, channels;
  // Of kGroup: the number of groups, and the channels of each.
  int groups, of_group;
  Divisor by_locations;
  // Each entry has `count` numbers, in `parts` parts.
  int64_t entries, count;
  int parts;
  int64_t blocks;    // that sum the parts
  SharedSums* sums;  // (parts, entries), if parts > 1
  Affine* affines;   // (entries)

  // Host only. Workspaces are not set.
  NormalizedInputs(const NormalizationGeometry& geometry, const NormalizationBatch& batch, const Array& array,
                   int multiprocessors)
      : x{array.data, number_type(array.type), 1.0f},
        moments(geometry.moments),
        centered(geometry.centered),
        epsilon(geometry.epsilon),
        // With one position per sample both layouts are the same, and rows of channels are longer.
        rows(geometry.channels_last || batch.locations == 1),
        samples(static_cast<int>(batch.samples)),
        locations(static_cast<int>(batch.locations)),
        channels(static_cast<int>(batch.channels)),
        groups(static_cast<int>(geometry.channel_groups)),
        of_group(channels / groups),
        by_locations(Divisor::of(static_cast<unsigned>(locations))),
        entries(0),
        count(1),
        parts(1),
        blocks(0),
        sums(nullptr),
        affines(nullptr) {
    if (batch.samples * batch.locations > INT32_MAX)
      throw std::invalid_argument("a batch must have less than 2^31 positions");
    if (!rows && moments != SharedMoments::kBatch && moments != SharedMoments::kGroup)
      throw std::invalid_argument("moments must be batch or group for channels before positions");
    if (moments == SharedMoments::kNone) return;
    entries = moments == SharedMoments::kBatch   ? batch.channels
              : moments == SharedMoments::kGroup ? batch.samples * groups
                                                 : batch.samples * batch.locations;
    count = batch.size() / entries;
    // Entries that a warp sums together.
    const int64_t warps = strided() ? (entries + 31) / 32 : entries;
    const int64_t wanted = 16 * multiprocessors, most = std::max<int64_t>(count / 256, 1);
    parts = static_cast<int>(std::clamp<int64_t>(wanted / warps, 1, most));
    blocks = std::min<int64_t>((warps * parts + kWarps - 1) / kWarps, 2 * wanted);
  }

  // Whether a warp reads adjacent entries, one per lane, and not the numbers of one entry.
  __host__ __device__ bool strided() const { return rows && moments == SharedMoments::kBatch; }
  int64_t numbers_of_sums() const { return parts > 1 ? parts * entries : 0; }
  int64_t affine_blocks() const { return parts > 1 ? (entries + kThreads - 1) / kThreads : 0; }

  __device__ int64_t place(int64_t entry, int64_t i) const {
    if (moments != SharedMoments::kBatch) return entry * count + i;
    if (rows) return i * channels + entry;
    const unsigned sample = by_locations.quotient(static_cast<unsigned>(i));
    return (sample * static_cast<int64_t>(channels) + entry) * locations + i - static_cast<int64_t>(sample) * locations;
  }
  __device__ float number(int64_t index) const {
    float value = 0.0f;
    x.visit([&](const auto* numbers) { value = as_float(numbers[index]); });
    return value;
  }
  // What an entry's sums are taken about.
  __device__ float shift(int64_t entry) const { return centered ? number(place(entry, 0)) : 0.0f; }

  __device__ void finish(int64_t entry, const SharedSums& of_entry) const {
    const double share = 1.0 / static_cast<double>(count);
    const double mean = centered ? of_entry.sum * share : 0.0;
    const double variance = of_entry.squares * share - mean * mean;
    affines[entry].mean = shift(entry) + static_cast<float>(mean);
    affines[entry].factor = 1.0f / sqrtf(static_cast<float>(variance > 0.0 ? variance : 0.0) + epsilon);
  }

  __device__ Affine affine(int sample, int location, int channel) const {
    if (moments == SharedMoments::kNone) return {0.0f, 1.0f};
    const int64_t entry = moments == SharedMoments::kBatch ? channel
                          : moments == SharedMoments::kGroup
                              ? sample * static_cast<int64_t>(groups) + channel / of_group
                              : sample * static_cast<int64_t>(locations) + location;
    return {__ldcg(&affines[entry].mean), __ldcg(&affines[entry].factor)};
  }
};

// Sums the parts of entries, and finishes entries that have one part.
__device__ inline void sum_parts(const NormalizedInputs& of, int64_t block) {
  const int lane = threadIdx.x % 32;
  const bool strided = of.strided();
  const int64_t tiles = strided ? (of.entries + 31) / 32 : of.entries;
  for (int64_t task = block * kWarps + threadIdx.x / 32; task < tiles * of.parts; task += of.blocks * kWarps) {
    const int64_t part = task / tiles, tile = task % tiles, entry = strided ? tile * 32 + lane : tile;
    const int64_t first = part * of.count / of.parts, last = (part + 1) * of.count / of.parts;
    SharedSums sums{0, 0};
    if (entry < of.entries) {
      const float shift = of.shift(entry);
      of.x.visit([&](const auto* numbers) {
        sums = shifted_sums(shift, strided ? first : first + lane, last, strided ? 1 : 32,
                            [&](int64_t i) { return as_float(numbers[of.place(entry, i)]); });
      });
    }
    if (!strided) sums = {warp_sum(sums.sum), warp_sum(sums.squares)};
    if (entry >= of.entries || (!strided && lane > 0)) continue;
    if (of.parts == 1)
      of.finish(entry, sums);
    else
      of.sums[part * of.entries + entry] = sums;
  }
}

// Finishes the entries of several parts.
__device__ inline void finish_entries(const NormalizedInputs& of, int64_t block) {
  const int64_t entry = block * kThreads + threadIdx.x;
  if (entry >= of.entries) return;
  SharedSums total{0, 0};
  for (int part = 0; part < of.parts; ++part) {
    const SharedSums* of_part = of.sums + part * of.entries + entry;
    total.sum += __ldcg(&of_part->sum);
    total.squares += __ldcg(&of_part->squares);
  }
  of.finish(entry, total);
}

}  // namespace ms_kfac
