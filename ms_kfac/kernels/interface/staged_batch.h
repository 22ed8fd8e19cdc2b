// A layer's staged batch: what backward passes brought since the optimizer's last commit.
//
// Statistics operators write it, CommitStatistics reads and empties it. It is a set of arrays and one record, float32:
//
//   passes    backward passes since the last commit that took statistics
//   period    passes whose batches add up to one; with 1 the last pass replaces the ones before it
//   product   r^T (sum g a^T) s of what is staged, for the signs r and s of signs.h, with g as delivered (unscaled)
//   products  the same of all passes since the last commit
//   scale     sum over the staged passes of |u| |v|, u = (a . s) and v = (g . r) over samples and locations: the
//             rounding error of `product` is a small multiple of it
//   weights   one per weight of the layer's statistics; 0 where the staged batch has none of it
#pragma once

#include <cstdint>

#include "host_device.h"

namespace ms_kfac {

enum StagedRecord { kPasses, kPeriod, kProduct, kProducts, kScale, kStagedWeights };

// Whether the coming pass adds to what is staged; otherwise it replaces it.
MS_KFAC_HOST_DEVICE inline bool joins_batch(const float* record) {
  const int64_t period = static_cast<int64_t>(record[kPeriod]);
  return period > 1 && static_cast<int64_t>(record[kPasses]) % period != 0;
}

// Whether the coming pass adds to the arrays of one weight. An array without weight holds an older batch.
MS_KFAC_HOST_DEVICE inline bool joins_array(const float* record, int weight) {
  return joins_batch(record) && record[kStagedWeights + weight] > 0.0f;
}

// Records a pass: `taken[i]` is what it adds to weight i, 0 for a statistic that it did not take. To be called after
// everything that asks joins_batch or joins_array.
MS_KFAC_HOST_DEVICE inline void record_pass(float* record, const float* taken, int weights, float product,
                                            float scale) {
  const bool joins = joins_batch(record), first = !(record[kPasses] > 0.0f);
  for (int i = 0; i < weights; ++i) record[kStagedWeights + i] = (joins ? record[kStagedWeights + i] : 0.0f) + taken[i];
  record[kProduct] = (joins ? record[kProduct] : 0.0f) + product;
  record[kScale] = (joins ? record[kScale] : 0.0f) + scale;
  record[kProducts] = (first ? 0.0f : record[kProducts]) + product;
  record[kPasses] += 1.0f;
}

}  // namespace ms_kfac
