// What becomes of the inverses of one call, as its launches tell one another and the host.
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {

// Of a factor. The last has precedence, where several hold: an infinite factor makes for an infinite damping, too.
enum Outcome { kFine = 0, kIndefinite = 1, kDampingNotFinite = 2, kNotFinite = 3, kHopeless = 4 };

// What became of a call's inverses, for the launches after it on the same stream.
struct Verdicts {
  // A word a factor, and one for the call: 4 * call + an Outcome, or what an earlier call left.
  const unsigned* words;
  int count;
  unsigned call;

  // Whether this factor's inverse is new. Where one factor of the call holds NaN or infinity, none is.
  __device__ bool written(int index) const { return words[index] <= 4 * call && words[count] <= 4 * call; }
};

// The same for the launches that find out.
struct Outcomes {
  Verdicts verdicts;
  unsigned* words;  // those of the verdicts
  int* of_factors;  // memory of the host: an Outcome a factor

  // What a word becomes.
  __host__ __device__ unsigned value(Outcome outcome) const { return 4 * verdicts.call + outcome; }

  // Raises a factor's word, and that of the call where nothing may be written.
  __device__ void fail(int index, Outcome outcome) const {
    atomicMax(words + index, value(outcome));
    if (outcome >= kDampingNotFinite) atomicMax(words + verdicts.count, value(outcome));
  }

  // What the host is to know of a factor. Where nothing may be written the causes alone: other factors' damping comes
  // of the same traces, and they may have failed for that.
  __device__ Outcome of(int index) const {
    const unsigned word = verdicts.words[index];
    const bool refused = verdicts.words[verdicts.count] > value(kFine);
    return word > value(refused ? kIndefinite : kFine) ? static_cast<Outcome>(word - value(kFine)) : kFine;
  }
};

// What is added to a factor's diagonal where it has failed before: more each time, not below what float32 resolves
// beside the trace, where it would change nothing; and a trace of zero leaves nothing to grow towards.
__device__ inline float grown_damping(float damping, float growth, double trace) {
  if (growth == 1.0f) return damping;
  const double grown = fmax(static_cast<double>(growth) * damping, 1e-8 * growth * trace);
  return grown == 0.0 ? 1.0f : static_cast<float>(grown);
}

}  // namespace ms_kfac
