// The diagonal of a side's second moment. Squares are first summed over samples, which reads each element once. The
// sums are then summed over the locations that each feature sees.
#pragma once

#include "../tile/axis_sums.h"
#include "batch_sides.h"

namespace ms_kfac {

struct Diagonal {
  AxisSums squares;
  // Patches of the sums of squares. The parts of `squares` take the role of samples.
  Patches patches;
  int groups;
  // The number of vectors in the second moment, which is the diagonal element of the bias.
  int64_t depth;
  // Whether a whole block computes one element; else each warp computes one.
  bool together;
  float* diagonals;  // (groups, features)

  __host__ __device__ int64_t count() const { return static_cast<int64_t>(groups) * patches.features(); }
  // Squares that one element sums.
  __host__ __device__ int64_t terms() const {
    return static_cast<int64_t>(squares.parts) * patches.locations[0] * patches.locations[1];
  }
  __host__ __device__ int64_t blocks() const {
    const int64_t at_once = together ? 1 : kThreads / 32;
    return (count() + at_once - 1) / at_once;
  }
};

// Computes one block's part. All squares must be complete.
__device__ inline void add_diagonal(const Diagonal& of, bool joins, int64_t block) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t number = of.together ? block : block * (kThreads / 32) + warp;
  if (number >= of.count()) return;
  const Tap tap = Tap::of(of.patches, static_cast<int>(number % of.patches.features()));
  const int group = static_cast<int>(number / of.patches.features());
  float sum = 0.0f;
  if (tap.offset == Tap::kOne) {
    sum = static_cast<float>(of.depth);
  } else {
    const int64_t terms = of.terms();
    const int first = of.together ? threadIdx.x : lane, step = of.together ? kThreads : 32;
#pragma unroll 4
    for (int64_t term = first; term < terms; term += step)
      sum += seen(of.patches, of.squares.sums, Corner::at(of.patches, group, term), tap);
    sum = of.together ? block_sum<kThreads>(sum) : warp_sum(sum);
  }
  if (of.together ? threadIdx.x == 0 : lane == 0) of.diagonals[number] = joins ? of.diagonals[number] + sum : sum;
}

// The diagonals of both sides, in two phases: sum_squares(), add_diagonals().
struct BatchDiagonals {
  Diagonal inputs, gradients;

  BatchDiagonals(const LayerSide& of_inputs, const LayerSide& of_gradients, int multiprocessors);
  int64_t numbers() const { return inputs.squares.numbers_of_sums() + gradients.squares.numbers_of_sums(); }
  // Sets a workspace of numbers() floats.
  void place(float* workspace);
  // Sets the diagonals that are added to or replaced.
  void set(const Array& of_inputs, const Array& of_gradients);

  int64_t square_blocks() const { return inputs.squares.blocks + gradients.squares.blocks; }
  int64_t blocks() const { return inputs.blocks() + gradients.blocks(); }
};

__device__ inline void sum_squares(const BatchDiagonals& of, SidesTaken taken, int64_t block) {
  const bool input = block < of.inputs.squares.blocks;
  if ((input ? taken.inputs : taken.gradients) == Taking::kNothing) return;
  sum_squares(input ? of.inputs.squares : of.gradients.squares, input ? block : block - of.inputs.squares.blocks);
}

__device__ inline void add_diagonals(const BatchDiagonals& of, SidesTaken taken, int64_t block) {
  const bool input = block < of.inputs.blocks();
  const Taking taking = input ? taken.inputs : taken.gradients;
  if (taking == Taking::kNothing) return;
  add_diagonal(input ? of.inputs : of.gradients, taking == Taking::kJoining,
               input ? block : block - of.inputs.blocks());
}

}  // namespace ms_kfac
