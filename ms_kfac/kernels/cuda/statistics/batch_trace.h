// The weights |a| and |g| of trace-restricted statistics for each vector of a batch, and the trace of the batch's
// block, delta = sum of |a|^2 |g|^2 (Gao et al. 2021, equation 8), as phases of a launch.
#pragma once

#include "../tile/axis_sums.h"
#include "batch_sides.h"

namespace ms_kfac {

// The norms of one side.
struct VectorNorms {
  bool of_patches;
  // `squares` sums over channels. A patch's norm sums the result over the patch's pixels, as patches of one channel.
  AxisSums squares;
  Patches patches;
  Rows rows;
  float* roots;  // (groups, depth)
};

struct BatchTrace {
  VectorNorms inputs, gradients;
  int groups, parts;
  int64_t depth;
  float* partials;     // (groups, parts)
  unsigned* arrivals;  // (groups,)
  float* traces;       // (groups,)

  BatchTrace(const LayerSide& of_inputs, const LayerSide& of_gradients, int multiprocessors);
  int64_t numbers() const;
  // Sets a workspace of numbers() floats and one counter per group.
  void place(float* workspace, unsigned* counters);
  // Weights the sums of both sides.
  void weigh(BatchSides& sides) const;

  int64_t square_blocks() const { return inputs.squares.blocks + gradients.squares.blocks; }
  int64_t blocks() const { return static_cast<int64_t>(groups) * parts; }
};

__device__ inline void sum_squares(const BatchTrace& of, int64_t block) {
  const bool input = block < of.inputs.squares.blocks;
  sum_squares(input ? of.inputs.squares : of.gradients.squares, input ? block : block - of.inputs.squares.blocks);
}

// |v|^2 of a patch, computed by one thread.
__device__ inline float patch_norm(const VectorNorms& of, int group, int64_t depth) {
  const Patches& patches = of.patches;
  const Corner corner = Corner::at(patches, group, depth);
  float sum = patches.bias ? 1.0f : 0.0f;
  for (int row = 0; row < patches.kernel[0]; ++row)
    for (int column = 0; column < patches.kernel[1]; ++column) {
      const int down = row * patches.dilation[0], right = column * patches.dilation[1];
      const Tap tap = Tap::at(down * patches.width + right, down, right);
      sum += seen(patches, of.squares.sums, corner, tap);
    }
  return sum;
}

// |v|^2 of a row, computed by one warp.
__device__ inline float row_norm(const Rows& rows, int group, int64_t row) {
  float sum = 0.0f;
  rows.numbers.visit([&](const auto* numbers) {
    const auto* from = numbers + group * rows.group_stride + row * rows.width;
#pragma unroll 8
    for (int feature = threadIdx.x % 32; feature < rows.width; feature += 32) {
      const float value = rows.numbers.scale * as_float(from[feature]);
      sum = fmaf(value, value, sum);
    }
  });
  return warp_sum(sum) + (rows.bias ? 1.0f : 0.0f);
}

// Computes a block's part of the norms. All squares must be complete. The last block of a group sums the trace and adds
// it to the staged trace or replaces it.
__device__ inline void add_norms(const BatchTrace& of, bool joins, int64_t block) {
  const int group = static_cast<int>(block / of.parts);
  const int64_t part = block % of.parts, first = part * of.depth / of.parts, last = (part + 1) * of.depth / of.parts;
  float sum = 0.0f;
  const auto keep = [&](int64_t depth, float a, float g) {
    of.inputs.roots[group * of.depth + depth] = sqrtf(a);
    of.gradients.roots[group * of.depth + depth] = sqrtf(g);
    sum = fmaf(a, g, sum);
  };
  if (of.inputs.of_patches) {
    for (int64_t depth = first + threadIdx.x; depth < last; depth += kThreads)
      keep(depth, patch_norm(of.inputs, group, depth), patch_norm(of.gradients, group, depth));
  } else {
    for (int64_t depth = first + threadIdx.x / 32; depth < last; depth += kThreads / 32) {
      const float a = row_norm(of.inputs.rows, group, depth), g = row_norm(of.gradients.rows, group, depth);
      if (threadIdx.x % 32 == 0) keep(depth, a, g);
    }
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) of.partials[block] = sum;
  if (count_block(of.arrivals + group) + 1 != static_cast<unsigned>(of.parts)) return;
  sum = 0.0f;
  for (int index = threadIdx.x; index < of.parts; index += kThreads)
    sum += __ldcg(of.partials + static_cast<int64_t>(group) * of.parts + index);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x > 0) return;
  of.arrivals[group] = 0;
  of.traces[group] = joins ? of.traces[group] + sum : sum;
}

}  // namespace ms_kfac
