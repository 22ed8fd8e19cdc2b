// Quotients by a Divisor equal those of integer division, at and next to multiples of many divisors.
#include <cstdio>
#include <initializer_list>

#include "../../../ms_kfac/kernels/cuda/tile/divisor.h"

namespace {

bool right(unsigned divisor) {
  const ms_kfac::Divisor by = ms_kfac::Divisor::of(divisor);
  constexpr int64_t kEnd = int64_t{1} << 31;
  // Number of multiples checked at each end of the range of dividends.
  constexpr int64_t kMultiples = 300;
  for (int64_t count = 0; count < kMultiples; ++count)
    for (const int64_t multiple : {count * divisor, (kEnd / divisor - count) * divisor})
      for (const int64_t dividend : {multiple - 1, multiple, multiple + 1})
        if (dividend >= 0 && dividend < kEnd && by.quotient(static_cast<unsigned>(dividend)) != dividend / divisor) {
          std::printf("%lld / %u is not %u\n", static_cast<long long>(dividend), divisor,
                      by.quotient(static_cast<unsigned>(dividend)));
          return false;
        }
  return true;
}

}  // namespace

int main() {
  bool all = true;
  for (unsigned divisor = 1; divisor < 5000; ++divisor) all = right(divisor) && all;
  for (unsigned power = 12; power < 31; ++power)
    for (const int beside : {-1, 0, 1}) all = right((1u << power) + beside) && all;
  all = right((1u << 31) - 1) && all;
  return all ? 0 : 1;
}
