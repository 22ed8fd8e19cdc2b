// Inner products of many pairs of arrays in one launch. A block sums one chunk: each thread accumulates in float32, and
// everything after that is float64. The last block of a pair sums the chunks in a fixed order.
#pragma once

#include "../scheduling/array_chunks.h"
#include "../scheduling/counters.h"
#include "../scheduling/item_batch.h"
#include "../tile/block_sum.h"

namespace ms_kfac {

struct InnerProduct {
  const float *x, *y;
  int64_t size;
  float* result;
  int first_partial;  // one partial sum per chunk
  int arrivals;       // index of the pair's counter

  __host__ __device__ int64_t blocks() const { return chunks(size); }
};

struct InnerProductMemory {
  double* partials;
  unsigned* arrivals;
};

namespace {

__global__ void __launch_bounds__(kChunkThreads)
    sum_inner_products(const __grid_constant__ ItemBatch<InnerProduct, InnerProductMemory> batch) {
  unsigned chunk;
  const InnerProduct& of = batch.items[batch.find(chunk)];
  float sum = 0.0f;
  visit_chunk(chunk, of.size, aligned(of.x, of.y), [&](auto count, int64_t first) {
    using Numbers = Pack<decltype(count)::value>;
    const Numbers x = Numbers::load(of.x + first), y = Numbers::load(of.y + first);
#pragma unroll
    for (int i = 0; i < decltype(count)::value; ++i) sum = fmaf(x.values[i], y.values[i], sum);
  });
  double total = block_sum<kChunkThreads>(static_cast<double>(sum));
  const int count = static_cast<int>(of.blocks());
  if (count > 1) {
    double* partials = batch.common.partials + of.first_partial;
    unsigned* arrivals = batch.common.arrivals + of.arrivals;
    if (threadIdx.x == 0) partials[chunk] = total;
    if (count_block(arrivals) + 1 != static_cast<unsigned>(count)) return;
    double share = 0;
    for (int i = threadIdx.x; i < count; i += kChunkThreads) share += __ldcg(partials + i);
    total = block_sum<kChunkThreads>(share);
    if (threadIdx.x == 0) *arrivals = 0;
  }
  if (threadIdx.x == 0) *of.result = static_cast<float>(total);
}

}  // namespace

}  // namespace ms_kfac
