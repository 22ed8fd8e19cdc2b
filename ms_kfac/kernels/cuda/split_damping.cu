#include <algorithm>

#include "block_sum.h"
#include "split_damping.h"

namespace ms_kfac {
namespace {

constexpr int kThreads = 256;

struct Batch {
  static constexpr int kMost = 70;
  const float* damping;
  FactorPair pairs[kMost];
};
static_assert(sizeof(Batch) <= 4000, "the parameters of a launch");

__device__ double diagonal_sum(const float* matrix, int size) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) sum += matrix[i * size + i];
  return block_sum<kThreads>(sum);
}

// A pair a block.
__global__ void __launch_bounds__(kThreads) split_dampings(const __grid_constant__ Batch batch) {
  const FactorPair& pair = batch.pairs[blockIdx.x];
  const float scale_A = average_scale(*pair.A_count), scale_G = average_scale(*pair.G_count);
  const double trace_A = scale_A * diagonal_sum(pair.A, pair.size_A);
  const double trace_G = scale_G * diagonal_sum(pair.G, pair.size_G);
  if (threadIdx.x > 0) return;
  SplitDamping damping{1.0f, 1.0f};
  if (*pair.A_count != 0.0f) damping = pi_split(trace_A, pair.size_A, trace_G, pair.size_G, *batch.damping);
  pair.numbers[0] = {scale_A, damping.A, static_cast<float>(trace_A)};
  pair.numbers[1] = {scale_G, damping.G, static_cast<float>(trace_G)};
}

}  // namespace

void split_damping(const std::vector<FactorPair>& pairs, const float* damping, cudaStream_t stream) {
  for (size_t first = 0; first < pairs.size(); first += Batch::kMost) {
    Batch batch{damping, {}};
    const size_t count = std::min<size_t>(pairs.size() - first, Batch::kMost);
    std::copy_n(pairs.begin() + first, count, batch.pairs);
    launch(split_dampings, static_cast<int64_t>(count), kThreads, stream, batch);
  }
}

}  // namespace ms_kfac
