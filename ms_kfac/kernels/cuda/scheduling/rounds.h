// Stages that a launch repeats in rounds, with part of the work per round. The workspace between stages then holds only
// one round.
#pragma once

#include <cstdint>

#include "counters.h"

namespace ms_kfac {

struct Turn {
  int round, stage;
  int64_t index;  // among the blocks of its stage
};

// Each block works on one stage of one round, in the order in which blocks claim work. A stage may have no blocks.
template <int kStages>
struct Rounds {
  int64_t blocks[kStages];
  int count;
  // Per stage: blocks that have finished, over all rounds.
  unsigned* finished;

  __host__ __device__ int64_t of_one() const {
    int64_t sum = 0;
    for (int64_t of_stage : blocks) sum += of_stage;
    return sum;
  }
  __host__ __device__ int64_t total() const { return count * of_one(); }

  __device__ Turn at(int64_t index) const {
    const int64_t each = of_one();
    Turn turn{static_cast<int>(index / each), 0, index % each};
    while (turn.index >= blocks[turn.stage]) turn.index -= blocks[turn.stage++];
    return turn;
  }
  // Waits for the previous stage, and for the previous round, whose workspace is overwritten. So no stage counts blocks
  // of a later round while blocks of an earlier round are missing.
  __device__ void wait_for(const Turn& turn) const {
    constexpr int kLast = kStages - 1;
    if (turn.round > 0) wait_until(finished + kLast, static_cast<unsigned>(turn.round * blocks[kLast]));
    if (turn.stage > 0)
      wait_until(finished + turn.stage - 1, static_cast<unsigned>((turn.round + 1) * blocks[turn.stage - 1]));
  }
  __device__ void finish(const Turn& turn) const { count_block(finished + turn.stage); }
  // Called by the last block of the launch.
  __device__ void reset() const {
    if (threadIdx.x < kStages) finished[threadIdx.x] = 0;
  }
};

}  // namespace ms_kfac
