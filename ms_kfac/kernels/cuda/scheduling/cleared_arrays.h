// Sets many arrays to zero in one launch.
#pragma once

#include "array_chunks.h"
#include "item_batch.h"

namespace ms_kfac {

struct ClearedArray {
  float* values;
  int64_t size;

  int64_t blocks() const { return chunks(size); }
};

struct NoCommonZeros {};

namespace {

__global__ void __launch_bounds__(kChunkThreads)
    clear_arrays(const __grid_constant__ ItemBatch<ClearedArray, NoCommonZeros> batch) {
  unsigned chunk;
  const ClearedArray& array = batch.items[batch.find(chunk)];
  visit_chunk(chunk, array.size, aligned(array.values),
              [&](auto count, int64_t first) { Pack<decltype(count)::value>{}.store(array.values + first); });
}

}  // namespace

}  // namespace ms_kfac
