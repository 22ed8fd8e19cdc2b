// Inverses of damped factors, many of them at a time and of any sizes: (scale F + damping I)^-1.
//
// Lower tiles of all matrices are swept panel by panel (sweep.h): n^3 multiply-adds in float32, all of them in tiles.
//
// Failures are found on the device and told to the host in mapped memory, because waiting for them would cost a step:
// the call after the one that failed raises or says so. Unlike the CPU there is no second try in the same call, and
// none in float64:
//  - NaN or infinity in one factor: no inverse of the call is written, and the next call throws, naming the factor.
//  - Not positive definite in float32: that inverse stays as it was. The factor's damping is ten times as large from
//    the next refresh on, again and again until it suffices, with a warning each time, and stays so. Where damping
//    beyond the trace fails, the next call throws.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "low_rank_inverse.h"
#include "operator.h"
#include "outcomes.h"

namespace ms_kfac {

// One inverse to compute. All addresses are of the device; scale and damping may come of an earlier launch of the call.
struct DampedFactor {
  const float* factor;
  int64_t stride;  // from one row to the next
  int size;
  const float* scale;
  const float* damping;
  float* inverse;  // size rows without gaps; both triangles are written, and are equal
  int index;       // of the sizes and names that the kernel was created with
};

class DampedInverses {
 public:
  // Declares workspaces for all factors that a call may bring.
  DampedInverses(AotExtra& extra, std::vector<int> sizes, std::vector<std::string> names);
  ~DampedInverses();

  // Throws std::runtime_error for a factor that an earlier call failed with. To be called in every call, whether a
  // layer is due or not, when the stream has been waited for: after the call's host read.
  void raise_failures() const;

  // Launches all of the work; of F the lower triangle is read.
  Verdicts run(const std::vector<DampedFactor>& factors, const Call& call) const { return run(factors, {}, call); }
  // The same with factors of low rank among them.
  Verdicts run(const std::vector<DampedFactor>& factors, const std::vector<LowRankFactor>& low_rank,
               const Call& call) const;

  // What a factor's damping is multiplied by because it has failed before. run() does it for all but those of low rank,
  // whose damping is needed together with Z: see grown_damping().
  float growth(int index) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ms_kfac
