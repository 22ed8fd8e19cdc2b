// Status of the inverses of one call, for its later launches and for the host.
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {

// Status of a factor. If several apply, the largest wins: an infinite factor also makes the damping infinite.
enum Outcome { kFine = 0, kIndefinite = 1, kDampingNotFinite = 2, kNotFinite = 3, kHopeless = 4 };

// Status of a call's inverses, for later launches on the same stream.
struct Verdicts {
  // One word per factor and one for the call: 4 * call + an Outcome, or the word of an earlier call.
  const unsigned* words;
  int count;
  unsigned call;

  // Whether this call wrote the factor's inverse. If one factor of the call holds NaN or infinity, no inverse is
  // written.
  __device__ bool written(int index) const { return words[index] <= 4 * call && words[count] <= 4 * call; }
};

// The same with write access, for the launches that detect failures.
struct Outcomes {
  Verdicts verdicts;
  unsigned* words;  // those of the verdicts
  int* of_factors;  // mapped host memory: one Outcome per factor

  // The word for an outcome in this call.
  __host__ __device__ unsigned value(Outcome outcome) const { return 4 * verdicts.call + outcome; }

  // Raises a factor's word. Also raises the call's word if nothing may be written.
  __device__ void fail(int index, Outcome outcome) const {
    atomicMax(words + index, value(outcome));
    if (outcome >= kDampingNotFinite) atomicMax(words + verdicts.count, value(outcome));
  }

  // The outcome that the host is told of a factor. If the call writes nothing, only causes are reported: other factors'
  // damping comes from the same traces, and may have failed only because of that.
  __device__ Outcome of(int index) const {
    const unsigned word = verdicts.words[index];
    const bool refused = verdicts.words[verdicts.count] > value(kFine);
    return word > value(refused ? kIndefinite : kFine) ? static_cast<Outcome>(word - value(kFine)) : kFine;
  }
};

// The damping of a factor after earlier failures. It is at least what float32 resolves next to the trace, since a
// smaller damping would change nothing. A zero damping with a zero trace becomes 1, because a multiple of zero cannot
// grow.
__device__ inline float grown_damping(float damping, float growth, double trace) {
  if (growth == 1.0f) return damping;
  const double grown = fmax(static_cast<double>(growth) * damping, 1e-8 * growth * trace);
  return grown == 0.0 ? 1.0f : static_cast<float>(grown);
}

}  // namespace ms_kfac
