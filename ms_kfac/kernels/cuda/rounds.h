// Stages that a launch goes through again and again, a share of the work each round, so that what is written from one
// stage to the next takes no more memory than a share.
#pragma once

#include <cstdint>

#include "counters.h"

namespace ms_kfac {

struct Turn {
  int round, stage;
  int64_t index;  // among the blocks of its stage
};

// Every block takes part in one stage of one round, in the order in which blocks claim work. A stage may have no
// blocks.
template <int kStages>
struct Rounds {
  int64_t blocks[kStages];
  int count;
  // Blocks that have finished each stage, of all rounds.
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
  // For the stage before, and for the round before, whose memory is written anew: so no stage's count has blocks of a
  // later round while one of an earlier round is missing.
  __device__ void wait_for(const Turn& turn) const {
    constexpr int kLast = kStages - 1;
    if (turn.round > 0) wait_until(finished + kLast, static_cast<unsigned>(turn.round * blocks[kLast]));
    if (turn.stage > 0)
      wait_until(finished + turn.stage - 1, static_cast<unsigned>((turn.round + 1) * blocks[turn.stage - 1]));
  }
  __device__ void finish(const Turn& turn) const { count_block(finished + turn.stage); }
  // By the last block of the launch.
  __device__ void reset() const {
    if (threadIdx.x < kStages) finished[threadIdx.x] = 0;
  }
};

}  // namespace ms_kfac
