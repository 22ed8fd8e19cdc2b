// Signed sums of rows, the vectors u and v of the capture check (statistics/capture_check.h).
#pragma once

#include "../../interface/signs.h"
#include "../tile/block_sum.h"
#include "rows.h"

namespace ms_kfac {

// Rows that a warp processes together, so that one sign serves several rows.
constexpr int kSignedRows = 4;

// Signed sums of `count` adjacent rows, `count` <= kSignedRows, computed by one warp and returned in all lanes.
template <SignAxis kAxis>
__device__ void signed_rows(const Rows& rows, int64_t first, int count, float (&sums)[kSignedRows]) {
  for (float& sum : sums) sum = 0.0f;
  rows.numbers.visit([&](const auto* numbers) {
    const auto* from = numbers + first * rows.width;
    for (int feature = threadIdx.x % 32; feature < rows.width; feature += 32) {
      const float of_feature = sign(kAxis, static_cast<uint32_t>(feature));
#pragma unroll
      for (int row = 0; row < kSignedRows; ++row)
        if (row < count)
          sums[row] = fmaf(of_feature, as_float(from[static_cast<int64_t>(row) * rows.width + feature]), sums[row]);
    }
  });
  for (float& sum : sums) sum = warp_sum(sum);
}

}  // namespace ms_kfac
