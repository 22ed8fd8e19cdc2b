// A launch in phases. Blocks claim work phase by phase, and the blocks of a phase can wait for an earlier phase to
// finish.
#pragma once

#include <cstdint>

#include "counters.h"

namespace ms_kfac {

// The work of a block: index `index` among the blocks of phase `phase`.
struct Claim {
  int phase;
  int64_t index;
};

template <int kPhases>
struct Phases {
  static constexpr int kCounters = kPhases + 2;

  int64_t blocks[kPhases];
  // Whether any phase waits for another. Otherwise blocks take work by blockIdx.x.
  bool ordered;
  // Blocks that have claimed work, blocks that have left, and blocks that have finished each phase.
  unsigned* counters;

  int64_t total() const {
    int64_t sum = 0;
    for (int64_t of_phase : blocks) sum += of_phase;
    return sum;
  }

  // Each block of the launch claims once, calls finish() if others wait for its phase, and leaves.
  __device__ Claim claim() const {
    Claim claim{0, blockIdx.x};
    if (ordered) claim.index = count_block(counters);
    // Ends even if an aborted launch has left the counters above zero.
    while (claim.phase < kPhases - 1 && claim.index >= blocks[claim.phase]) claim.index -= blocks[claim.phase++];
    return claim;
  }
  __device__ void finish(int phase) const {
    if (ordered) count_block(counters + 2 + phase);
  }
  __device__ void wait_for(int phase) const {
    if (ordered) wait_until(counters + 2 + phase, static_cast<unsigned>(blocks[phase]));
  }
  // Returns whether this block is the last to leave.
  __device__ bool leave() const {
    const bool last = ordered && count_block(counters + 1) + 1 == gridDim.x;
    if (last && threadIdx.x < kCounters) counters[threadIdx.x] = 0;
    return last;
  }
};

}  // namespace ms_kfac
