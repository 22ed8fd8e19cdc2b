// The staged batch of a layer: the statistics of all backward passes since the last commit of the optimizer.
//
// Statistics operators write it. CommitStatistics reads and empties it. It consists of arrays and one float32 record:
//
//   passes    number of backward passes with statistics since the last commit, minus those that come first and do not
//             belong to the step; so it is negative or 0 until these are done
//   period    number of passes whose batches are summed; with 1 each pass replaces the one before it
//   product   r^T (sum g a^T) s of the staged batch, with the signs r and s of signs.h and g as delivered (unscaled)
//   products  the same, summed over all passes since the last commit
//   scale     sum over the staged passes of |u| |v|, with u = (a . s) and v = (g . r) over samples and locations; the
//             rounding error of `product` is a small multiple of it
//   weights   one per weight of the layer's statistics; 0 if the staged batch lacks that statistic
#pragma once

#include <cstdint>

#include "host_device.h"

namespace ms_kfac {

enum StagedRecord { kPasses, kPeriod, kProduct, kProducts, kScale, kStagedWeights };

// Whether the next pass adds to the staged batch. Otherwise it replaces the batch.
MS_KFAC_HOST_DEVICE inline bool joins_batch(const float* record) {
  const int64_t period = static_cast<int64_t>(record[kPeriod]);
  return period > 1 && static_cast<int64_t>(record[kPasses]) % period != 0;
}

// Whether the next pass adds to the arrays of one weight. If the weight is 0, the array still holds an older batch.
MS_KFAC_HOST_DEVICE inline bool joins_array(const float* record, int weight) {
  return joins_batch(record) && record[kStagedWeights + weight] > 0.0f;
}

// Records a pass. `taken[i]` is the pass's contribution to weight i, 0 if the pass did not take that statistic. Call it
// after all calls of joins_batch and joins_array for this pass.
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
