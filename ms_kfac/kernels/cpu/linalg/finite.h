// Checks that numbers are finite before anything is computed from them.
#pragma once

#include <cstdint>
#include <vector>

#include "../threads/factor_failure.h"
#include "../threads/threads.h"

namespace ms_kfac {

// Whether all scale * values[i] are finite.
bool all_finite(const float* values, int64_t count, float scale = 1.0f);

// The same for the upper triangle of a matrix whose rows are `stride` numbers apart.
bool upper_finite(const float* matrix, int64_t stride, int size, float scale = 1.0f);

// Throws FactorFailure for the first factor for which `finite` is false. It checks all factors and
// writes nothing, so a caller that calls it first leaves everything unchanged.
template <typename Factor, typename Finite>
void require_each_finite(const std::vector<Factor>& factors, Finite finite) {
  std::vector<char> fine(factors.size());
  parallel_for(static_cast<int64_t>(factors.size()), [&](int64_t index) { fine[index] = finite(factors[index]); });
  for (size_t index = 0; index < factors.size(); ++index)
    if (!fine[index]) throw FactorFailure(factors[index].name, " holds NaN or infinity");
}

}  // namespace ms_kfac
