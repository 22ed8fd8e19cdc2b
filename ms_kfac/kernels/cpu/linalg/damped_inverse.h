// Inverses of damped factors: many per call, of any sizes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ms_kfac {

// One inverse to compute: (scale F + damping I)^-1.
struct DampedFactor {
  std::string name;  // for messages
  const float* factor;
  int64_t stride;  // from one row to the next
  int size;
  float scale;
  float damping;
  float* inverse;  // size rows without gaps; both triangles are written
};

// Throws FactorFailure for the first factor whose entries, scale or damping are NaN or infinite.
void require_finite(const std::vector<DampedFactor>& factors);

// Computes all inverses. Calls require_finite first, so nothing is written if it throws. Reads the upper triangle of F.
// A factor that is not positive definite in float32 is inverted in float64. If that fails, the damping grows by factors
// of ten until it succeeds, with a warning. Throws FactorFailure if damping beyond its trace fails, or what `also`
// throws, which runs when all others have succeeded. All factors then keep their old inverses.
void invert_damped(std::vector<DampedFactor> factors, const std::function<void()>& also = {});

// Copies the upper triangle onto the lower one.
void mirror_upper(float* matrix, int size);

}  // namespace ms_kfac
