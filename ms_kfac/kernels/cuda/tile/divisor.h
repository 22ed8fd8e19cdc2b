// Division by an invariant integer: one multiplication and one shift.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ms_kfac {

// Valid for dividends below 2^31. With 2^l >= divisor the multiplier is 2^(31 + l) / divisor, rounded up. Rounding adds
// less than 2^31 / 2^(31 + l) <= 1 / divisor to the quotient, which does not reach the next integer.
struct Divisor {
  unsigned divisor, multiplier;
  int shift;

  __host__ __device__ static Divisor of(unsigned divisor) {
    int l = 0;
    while ((uint64_t{1} << l) < divisor) ++l;
    const int shift = 31 + l;
    return {divisor, static_cast<unsigned>(((uint64_t{1} << shift) + divisor - 1) / divisor), shift};
  }
  __host__ __device__ unsigned quotient(unsigned dividend) const {
    return static_cast<unsigned>(static_cast<uint64_t>(dividend) * multiplier >> shift);
  }
};

}  // namespace ms_kfac
