// Inverses of damped factors, many of them at a time and of any sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ms_kfac {

// One inverse to compute: (scale F + damping I)^-1.
struct DampedFactor {
  std::string name;  // in messages
  const float* factor;
  int64_t stride;  // from one row to the next
  int size;
  float scale;
  float damping;
  float* inverse;  // size rows without gaps; both triangles are written
};

// Throws std::runtime_error that names the first factor that holds NaN or infinity, or has such a damping.
void require_finite(const std::vector<DampedFactor>& factors);

// Computes them all, if they are finite: else nothing is written and require_finite throws. Of F the upper triangle is
// read. A factor that is not positive definite in float32 is inverted in float64; one that is not so either gets ten
// times the damping, again and again, with a warning. Throws std::runtime_error that names the factor where damping
// beyond its trace fails: the inverse that was there stays, as its lower triangle had it, but those of other factors
// may have been replaced.
void invert_damped(std::vector<DampedFactor> factors);

// Copies the upper triangle onto the lower one.
void mirror_upper(float* matrix, int size);

}  // namespace ms_kfac
