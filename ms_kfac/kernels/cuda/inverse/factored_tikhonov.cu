#include "../scheduling/item_batch.h"
#include "../tile/block_sum.h"
#include "factored_tikhonov.h"

namespace ms_kfac {
namespace {

constexpr int kThreads = 256;

struct Lambda {
  const float* damping;
};

__device__ double diagonal_sum(const float* matrix, int size) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) sum += matrix[i * size + i];
  return block_sum<kThreads>(sum);
}

// One block per pair.
__global__ void __launch_bounds__(kThreads)
    factored_tikhonov_damping(const __grid_constant__ ItemBatch<FactorPair, Lambda> batch) {
  unsigned block;
  const FactorPair& pair = batch.items[batch.find(block)];
  const float scale_A = average_scale(*pair.A_count), scale_G = average_scale(*pair.G_count);
  const double trace_A = scale_A * diagonal_sum(pair.A, pair.size_A);
  const double trace_G = scale_G * diagonal_sum(pair.G, pair.size_G);
  if (threadIdx.x > 0) return;
  SplitDamping damping{1.0f, 1.0f};
  if (*pair.A_count != 0.0f)
    damping = pi_split(trace_A, pair.size_A, trace_G, pair.size_G, *batch.common.damping, pair.by_traces);
  pair.numbers[0] = {scale_A, damping.A, static_cast<float>(trace_A)};
  pair.numbers[1] = {scale_G, damping.G, static_cast<float>(trace_G)};
}

}  // namespace

void split_damping(const std::vector<FactorPair>& pairs, const float* damping, cudaStream_t stream) {
  launch_items(factored_tikhonov_damping, pairs, Lambda{damping}, kThreads, stream);
}

}  // namespace ms_kfac
