// Inverses of damped factors, (scale F + damping I)^-1, for many factors of any sizes at a time.
//
// The lower tiles of all matrices are swept panel by panel (sweep.h): n^3 / 2 multiply-adds in float32, all in tiles.
//
// The device reports failures to the host in mapped memory, because waiting for them would stall each step. The next
// call raises the error or warns. Unlike on the CPU, there is no retry in the same call and no fallback to float64:
//  - NaN or infinity in one factor: the call writes no inverse, and the next call throws and names the factor.
//  - Not positive definite in float32: that factor keeps its previous inverse. From the next refresh on its damping is
//    ten times as large, again and again until it suffices, with a warning each time. The damping stays at that
//    multiple. If damping beyond the trace fails too, the next call throws.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../operator.h"
#include "inverse_status.h"
#include "low_rank_inverse.h"

namespace ms_kfac {

// One inverse to compute. All pointers are device pointers. An earlier launch of the same call may write scale and
// damping.
struct DampedFactor {
  const float* factor;
  int64_t stride;  // from one row to the next
  int size;
  const float* scale;
  const float* damping;
  float* inverse;  // `size` contiguous rows; both triangles are written and are equal
  int index;       // into the sizes and names that the kernel was created with
};

class DampedInverses {
 public:
  // Declares workspaces for all factors that a call may pass.
  DampedInverses(AotExtra& extra, std::vector<int> sizes, std::vector<std::string> names);
  ~DampedInverses();

  // Tells the reporter of a factor that failed in an earlier call; without a reporter, throws std::runtime_error. Each
  // call must call it, even if no layer is due, after the stream is synchronized by the call's read on the host.
  void take_failures(int64_t reporter) const;

  // Launches all the work. Reads the lower triangle of each F.
  Verdicts run(const std::vector<DampedFactor>& factors, const Call& call) const { return run(factors, {}, call); }
  // The same with low-rank factors in the batch.
  Verdicts run(const std::vector<DampedFactor>& factors, const std::vector<LowRankFactor>& low_rank,
               const Call& call) const;

  // The multiple of the damping that a factor needs after earlier failures. run() applies it, except to low-rank
  // factors, where Z must come with the damping that was used: see grown_damping().
  float growth(int index) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ms_kfac
