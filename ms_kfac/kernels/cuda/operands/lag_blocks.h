// Assembles the second moment of patches from products of shifted images.
//
// A block assembles the pairs of two sets of channels with all pairs of their taps, so that it reads and writes long
// runs of the sum's rows. It gathers them in shared memory; one thread computes each element.
#pragma once

#include "lag_products.h"

namespace ms_kfac {

// Shared memory of a block.
struct AssemblyMemory {
  static constexpr int kNumbers = 8192;
  float numbers[kNumbers];
};

// The channels of one block: `channels` from `row` on, paired with as many from `column` on, column <= row.
struct AssemblyTask {
  int group, row, column, channels;

  // Channels per task: a power of two, so that they lie in one tile. Rows of shared memory have an odd length, which
  // avoids bank conflicts when columns are read.
  __host__ __device__ static int channels_at_once(int taps) {
    int channels = 32;
    while (channels * taps * (channels * taps | 1) > AssemblyMemory::kNumbers) channels /= 2;
    return channels;
  }
  __host__ __device__ static int64_t count(const LagProducts& products, int taps) {
    // Without lags, there may be too many taps for one channel.
    if (!products.used()) return 0;
    const int at_once = channels_at_once(taps);
    const int64_t across = (products.channels + (products.bias ? 1 : 0) + at_once - 1) / at_once;
    return products.groups * (across * (across + 1) / 2);
  }
  __host__ __device__ AssemblyTask(const LagProducts& products, int taps, int64_t task)
      : channels(channels_at_once(taps)) {
    const int64_t of_group = count(products, taps) / products.groups;
    group = static_cast<int>(task / of_group);
    int64_t index = task % of_group;
    row = 0;
    while (index > row) index -= ++row;
    row *= channels;
    column = static_cast<int>(index) * channels;
  }
  __host__ __device__ bool diagonal() const { return row == column; }
};

// An element of a product: the sum of its split-K parts in a fixed order.
__device__ inline float product_of(const LagProducts& products, const Lag& lag, int product, int group, int first,
                                   int second) {
  const int side = products.side, parts = products.parts(lag, product);
  const int64_t tile = group * products.tiles(lag) + products.tile(lag, first / side, second / side);
  const float* from = products.partials + (products.first_task[product] + tile * parts) * side * side +
                      first % side * side + second % side;
  float sum = 0.0f;
  for (int part = 0; part < parts; ++part) sum += __ldcg(from + static_cast<int64_t>(part) * side * side);
  return sum;
}

// Adds the products of a lag, for channel `first` at the first tap and `second` at the second, to all blocks that
// contain them. Calls add(first tap, second tap, number).
template <typename Add>
__device__ void for_blocks(const LagProducts& products, const Patches& patches, const Lag& lag, int group, int first,
                           int second, const Add& add) {
  // All loads are issued before the first addition, so that they overlap.
  constexpr int kAtOnce = 4;
  const int height = patches.kernel[0], width = patches.kernel[1], count = lag.rows * lag.columns;
  const bool one = first == products.channels;
  for (int index = 0; index < count; index += kAtOnce) {
    float numbers[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      if (index + k < count)
        numbers[k] = product_of(products, lag, lag.first_product + index + k, group, first, second);
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (index + k >= count) break;
      // All pixels of a segment are seen by the same taps, so its first pixel stands for it.
      const int top = products.rows_of(lag, lag.first_product + index + k).first + patches.before[0];
      const int left = products.columns_of(lag, lag.first_product + index + k).first + patches.before[1];
      for (int i = 0; i < height - lag.down; ++i) {
        if (i > top || top >= i + patches.locations[0]) continue;
        for (int j = max(0, -lag.right); j < min(width, width - lag.right); ++j)
          if (j <= left && left < j + patches.locations[1])
            add(one ? 0 : i * width + j, (i + lag.down) * width + j + lag.right, numbers[k]);
      }
    }
  }
}

// Adds all products of a task's channels to `numbers`, which must be zero. One thread computes each element. Rows are
// `stride` apart.
__device__ inline void gather(const LagProducts& products, const Patches& patches, const AssemblyTask& task, int stride,
                              float* numbers) {
  const int taps = patches.kernel[0] * patches.kernel[1];
  // Each item is a lag and two channels, the first of which belongs to the first tap. The first channel is from the
  // task's rows and the second from its columns, or the other way round.
  const int pairs = task.channels * task.channels, orders = task.diagonal() ? 1 : 2;
  for (int item = threadIdx.x; item < products.lags * orders * pairs; item += kThreads) {
    const int x = item % pairs / task.channels, y = item % task.channels;
    const bool swapped = item / pairs % orders == 1;
    const Lag& lag = products.of_lag[item / pairs / orders];
    const int first = (swapped ? task.column : task.row) + x, second = (swapped ? task.row : task.column) + y;
    if (second >= products.channels || (lag.is_zero() && (swapped || first < second))) continue;
    if (first >= products.channels && !(lag.is_zero() && products.bias && first == products.channels)) continue;
    for_blocks(products, patches, lag, task.group, first, second, [&](int first_tap, int second_tap, float number) {
      const int row = x * taps + first_tap, column = y * taps + second_tap;
      const bool mirrored = swapped || (task.diagonal() && row < column);
      numbers[mirrored ? column * stride + row : row * stride + column] += number;
    });
  }
  // The product of the bias's one with itself belongs to no item.
  const int of_bias = (products.channels - task.row) * taps;
  if (threadIdx.x == 0 && products.bias && task.diagonal() && products.channels - task.row < task.channels)
    numbers[of_bias * stride + of_bias] =
        static_cast<float>(static_cast<int64_t>(products.samples) * patches.locations[0] * patches.locations[1]);
}

// Adds a square of elements to a symmetric matrix or replaces it, from (first_row, first_column) on. Elements above the
// matrix's diagonal are copies of those below.
__device__ inline void add_square(int length, int stride, float* numbers, bool joins, int features, int64_t first_row,
                                  int64_t first_column, float* matrix) {
  // Rows processed together, so that their loads overlap.
  constexpr int kRows = 8, kWarps = kThreads / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto is_lower = [&](int i, int j) {
    return i < length && first_row + i < features && first_column + j <= first_row + i;
  };
  for (int i = warp; i < length; i += kRows * kWarps)
    for (int j = lane; j < length; j += 32) {
      float before[kRows];
#pragma unroll
      for (int k = 0; k < kRows; ++k)
        if (joins && is_lower(i + k * kWarps, j))
          before[k] = matrix[(first_row + i + k * kWarps) * features + first_column + j];
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        const int row = i + k * kWarps;
        if (!is_lower(row, j)) continue;
        const float number = numbers[row * stride + j], sum = joins ? before[k] + number : number;
        numbers[row * stride + j] = sum;
        matrix[(first_row + row) * features + first_column + j] = sum;
      }
    }
  __syncthreads();
  for (int j = warp; j < length; j += kWarps)
    for (int i = lane; i < length; i += 32)
      if (is_lower(i, j)) matrix[(first_column + j) * features + first_row + i] = numbers[i * stride + j];
}

// All threads of the block call it. All product tasks must be complete.
__device__ inline void assemble(const LagProducts& products, const Patches& patches, bool joins, float* matrices,
                                int64_t index, AssemblyMemory& memory) {
  const int taps = patches.kernel[0] * patches.kernel[1], features = patches.features();
  const AssemblyTask task(products, taps, index);
  const int length = task.channels * taps, stride = length | 1;
  for (int i = threadIdx.x; i < length * stride; i += kThreads) memory.numbers[i] = 0.0f;
  __syncthreads();
  gather(products, patches, task, stride, memory.numbers);
  __syncthreads();
  add_square(length, stride, memory.numbers, joins, features, int64_t{task.row} * taps, int64_t{task.column} * taps,
             matrices + static_cast<int64_t>(task.group) * features * features);
}

}  // namespace ms_kfac
