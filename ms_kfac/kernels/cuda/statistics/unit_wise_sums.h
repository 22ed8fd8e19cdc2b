// The per-sample gradients of gamma and beta of a normalization layer, the sums of their squares and products over
// samples, and the sums of the capture check.
#pragma once

#include "../../interface/signs.h"
#include "normalized_inputs.h"
#include "staged_pass.h"

namespace ms_kfac {

struct UnitWiseSums {
  NormalizedInputs inputs;
  Numbers dout;
  // Of per-sample gradients. The capture check takes dout as delivered.
  float scale;
  bool bias;
  // Channels of a row of gamma, and taps of a column.
  int of_row, taps;
  // In rows: threads across channels, and parts of a sample's positions.
  int width, parts;
  int64_t gradient_blocks, square_blocks;
  float *gamma, *beta;  // (samples, parts, channels)
  double* partials;     // uu and vv per gradient block, then a product per square block

  // Host only. Workspaces are not set.
  UnitWiseSums(const NormalizationGeometry& geometry, const Array& x, const Array& of_dout, int multiprocessors)
      : UnitWiseSums(geometry,
                     batch_of(geometry, {x.shape, x.shape + x.axes}, {of_dout.shape, of_dout.shape + of_dout.axes}), x,
                     of_dout, multiprocessors) {}

  int64_t gradients() const { return int64_t{inputs.samples} * parts * inputs.channels; }
  int64_t partial_sums() const { return 2 * gradient_blocks + square_blocks; }
  __host__ __device__ int64_t tiles() const { return (inputs.channels + width - 1) / width; }

  __device__ float gamma_sign(int channel) const {
    const int column = channel % of_row;
    return sign(kRows, static_cast<uint32_t>(channel / of_row)) * sign(kColumns, static_cast<uint32_t>(column / taps)) *
           sign(kTaps, static_cast<uint32_t>(column % taps));
  }
  __device__ float beta_sign(int channel) const { return bias ? sign(kRows, static_cast<uint32_t>(channel)) : 0.0f; }

 private:
  UnitWiseSums(const NormalizationGeometry& geometry, const NormalizationBatch& batch, const Array& x,
               const Array& of_dout, int multiprocessors)
      : inputs(geometry, batch, x, multiprocessors),
        dout{of_dout.data, number_type(of_dout.type), 1.0f},
        scale(geometry.gradient_scale * (geometry.mean_reduction ? static_cast<float>(batch.samples) : 1.0f)),
        bias(geometry.bias),
        of_row(static_cast<int>(batch.channels / geometry.shape.at(0))),
        taps(geometry.shape.size() > 1 ? static_cast<int>(of_row / geometry.shape[1]) : 1),
        width(32),
        parts(1),
        gamma(nullptr),
        beta(nullptr),
        partials(nullptr) {
    const int64_t wanted = 8 * multiprocessors;
    int64_t tasks = (batch.samples * batch.channels + kWarps - 1) / kWarps;
    if (inputs.rows) {
      while (width < kThreads && width < batch.channels) width *= 2;
      // A thread then has at least eight positions.
      const int64_t most = std::max<int64_t>(batch.locations * width / (8 * kThreads), 1);
      parts = static_cast<int>(std::clamp<int64_t>(wanted / (batch.samples * tiles()), 1, most));
      tasks = batch.samples * parts * tiles();
    }
    gradient_blocks = std::min(tasks, wanted);
    square_blocks = (batch.channels + 31) / 32;
  }
};

// A thread's sums for one channel and some positions of a sample, and those of the capture check over all.
struct ChannelSums {
  float gamma, beta, gamma_sign, beta_sign;
  double uu, vv;

  __device__ void start(const UnitWiseSums& of, int channel) {
    gamma = beta = 0.0f;
    gamma_sign = of.gamma_sign(channel);
    beta_sign = of.beta_sign(channel);
  }
  __device__ void add(float x, float g, const Affine& affine, float& of_uu, float& of_vv) {
    const float x_hat = (x - affine.mean) * affine.factor, u = fmaf(gamma_sign, x_hat, beta_sign);
    gamma = fmaf(g, x_hat, gamma);
    beta += g;
    of_uu = fmaf(u, u, of_uu);
    of_vv = fmaf(g, g, of_vv);
  }
};

// Channels before positions: a warp per sample and channel.
__device__ inline void sum_columns(const UnitWiseSums& of, int64_t block, ChannelSums& sums) {
  const NormalizedInputs& inputs = of.inputs;
  const int lane = threadIdx.x % 32;
  const int64_t runs = static_cast<int64_t>(inputs.samples) * inputs.channels;
  for (int64_t run = block * kWarps + threadIdx.x / 32; run < runs; run += of.gradient_blocks * kWarps) {
    const int channel = static_cast<int>(run % inputs.channels), sample = static_cast<int>(run / inputs.channels);
    const Affine affine = inputs.affine(sample, 0, channel);
    const int64_t first = run * inputs.locations;
    float uu = 0.0f, vv = 0.0f;
    sums.start(of, channel);
    inputs.x.visit([&](const auto* x) {
      of.dout.visit([&](const auto* dout) {
#pragma unroll 4
        for (int i = lane; i < inputs.locations; i += 32)
          sums.add(as_float(x[first + i]), as_float(dout[first + i]), affine, uu, vv);
      });
    });
    sums.uu += uu;
    sums.vv += vv;
    const float gamma = warp_sum(sums.gamma), beta = warp_sum(sums.beta);
    if (lane > 0) continue;
    of.gamma[run] = gamma;
    of.beta[run] = beta;
  }
}

// Channels last: a block per sample, part of its positions and tile of channels, a thread per channel and slice of the
// positions.
__device__ inline void sum_rows(const UnitWiseSums& of, int64_t block, ChannelSums& sums) {
  __shared__ float of_slices[2][kThreads];
  const NormalizedInputs& inputs = of.inputs;
  const int column = threadIdx.x % of.width, slice = threadIdx.x / of.width, slices = kThreads / of.width;
  const int64_t tiles = of.tiles(), tasks = static_cast<int64_t>(inputs.samples) * of.parts * tiles;
  const bool of_position = inputs.moments == SharedMoments::kPosition;
  for (int64_t task = block; task < tasks; task += of.gradient_blocks) {
    const int64_t line = task / tiles;
    const int channel = static_cast<int>(task % tiles) * of.width + column;
    const int sample = static_cast<int>(line / of.parts), part = static_cast<int>(line % of.parts);
    const int64_t locations = inputs.locations;
    const int first = static_cast<int>(part * locations / of.parts),
              last = static_cast<int>((part + 1) * locations / of.parts);
    const bool inside = channel < inputs.channels;
    float uu = 0.0f, vv = 0.0f;
    sums.start(of, channel);
    if (inside) {
      const int64_t start = sample * locations * inputs.channels + channel;
      const Affine shared = of_position ? Affine{0.0f, 1.0f} : inputs.affine(sample, 0, channel);
      inputs.x.visit([&](const auto* x) {
        of.dout.visit([&](const auto* dout) {
#pragma unroll 4
          for (int location = first + slice; location < last; location += slices) {
            const int64_t index = start + static_cast<int64_t>(location) * inputs.channels;
            sums.add(as_float(x[index]), as_float(dout[index]),
                     of_position ? inputs.affine(sample, location, channel) : shared, uu, vv);
          }
        });
      });
    }
    sums.uu += uu;
    sums.vv += vv;
    of_slices[0][threadIdx.x] = sums.gamma;
    of_slices[1][threadIdx.x] = sums.beta;
    __syncthreads();
    if (inside && slice == 0) {
      float gamma = 0.0f, beta = 0.0f;
      for (int other = 0; other < slices; ++other) {
        gamma += of_slices[0][other * of.width + column];
        beta += of_slices[1][other * of.width + column];
      }
      of.gamma[line * inputs.channels + channel] = gamma;
      of.beta[line * inputs.channels + channel] = beta;
    }
    __syncthreads();
  }
}

__device__ inline void sum_gradients(const UnitWiseSums& of, int64_t block) {
  ChannelSums sums{};
  if (of.inputs.rows)
    sum_rows(of, block, sums);
  else
    sum_columns(of, block, sums);
  const double uu = block_sum<kThreads>(sums.uu), vv = block_sum<kThreads>(sums.vv);
  if (threadIdx.x > 0) return;
  of.partials[2 * block] = uu;
  of.partials[2 * block + 1] = vv;
}

// Sums over samples for 32 channels. A sample's gradients are scaled before they are squared: the square of a gradient
// of a large batch's mean could underflow.
__device__ inline void sum_squares(const UnitWiseSums& of, bool joins, float* squares, float* cross, int64_t block) {
  enum { kGamma, kBeta, kCross, kSums };
  __shared__ double of_slices[kSums][kThreads];
  const int slice = threadIdx.x / 32, channels = of.inputs.channels;
  const int64_t channel = block * 32 + threadIdx.x % 32;
  double sums[kSums] = {0, 0, 0}, product = 0;
  if (channel < channels) {
    const double gamma_sign = of.gamma_sign(static_cast<int>(channel)),
                 beta_sign = of.beta_sign(static_cast<int>(channel));
    for (int64_t sample = slice; sample < of.inputs.samples; sample += kWarps) {
      float gamma = 0.0f, beta = 0.0f;
      for (int part = 0; part < of.parts; ++part) {
        const int64_t index = (sample * of.parts + part) * channels + channel;
        gamma += __ldcg(of.gamma + index);
        beta += __ldcg(of.beta + index);
      }
      product += gamma_sign * gamma + beta_sign * beta;
      const double of_gamma = of.scale * gamma, of_beta = of.scale * beta;
      sums[kGamma] += of_gamma * of_gamma;
      sums[kBeta] += of_beta * of_beta;
      sums[kCross] += of_gamma * of_beta;
    }
  }
  for (int sum = 0; sum < kSums; ++sum) of_slices[sum][threadIdx.x] = sums[sum];
  __syncthreads();
  if (slice == 0 && channel < channels) {
    for (int other = 1; other < kWarps; ++other)
      for (int sum = 0; sum < kSums; ++sum) sums[sum] += of_slices[sum][other * 32 + threadIdx.x];
    float* const to[kSums] = {squares + channel, squares + channels + channel, cross + channel};
    for (int sum = 0; sum < kSums; ++sum) *to[sum] = (joins ? *to[sum] : 0.0f) + static_cast<float>(sums[sum]);
  }
  product = block_sum<kThreads>(product);
  if (threadIdx.x == 0) of.partials[2 * of.gradient_blocks + block] = product;
}

// Called by all threads of the last block. Records the pass.
__device__ inline void record(const UnitWiseSums& of, const StagedPass& pass) {
  double uu = 0, vv = 0, product = 0;
  for (int64_t block = threadIdx.x; block < of.gradient_blocks; block += kThreads) {
    uu += __ldcg(of.partials + 2 * block);
    vv += __ldcg(of.partials + 2 * block + 1);
  }
  for (int64_t block = threadIdx.x; block < of.square_blocks; block += kThreads)
    product += __ldcg(of.partials + 2 * of.gradient_blocks + block);
  uu = block_sum<kThreads>(uu);
  vv = block_sum<kThreads>(vv);
  product = block_sum<kThreads>(product);
  if (threadIdx.x > 0) return;
  const float taken = pass.added(0);
  record_pass(pass.record, &taken, 1, static_cast<float>(product), static_cast<float>(sqrt(uu) * sqrt(vv)));
}

}  // namespace ms_kfac
