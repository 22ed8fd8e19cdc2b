// SMKFAC: scalars of a Sherman-Morrison layer next to its inverses: the number of its refreshes, whether the next
// refresh is full, the traces of the implied factors, and the scale. One launch after the inverses writes them.
#pragma once

#include "damped_inverse.h"
#include "factored_tikhonov.h"
#include "rank_one_inverse.h"

namespace ms_kfac {

struct LayerNumbers {
  float *refreshes, *full;
  // One number per group; null where they are not kept.
  float *A_trace, *G_trace, *scale;
  // The new values of `refreshes` and `full`.
  float next_refreshes, next_full;
  float alpha, beta;
  int groups, size_A, size_G;
  int first_factor;  // among all factors: A and G of the first group, of the second and so on
  bool inverted;     // whether this was a full refresh
  bool seen;         // whether there are diagonals
  bool splits;       // whether the damping is split by traces

  int64_t blocks() const { return 1; }
};

// Results of all factors.
struct FactorResults {
  const float* damping;
  const FactorNumbers* inverted;
  const RankOneResult* updated;
  Verdicts verdicts;
};

constexpr int kNumberThreads = 64;

namespace {

__device__ inline void keep_traces(const LayerNumbers& layer, const FactorResults& results, int group) {
  const int A = layer.first_factor + 2 * group, G = A + 1;
  float &A_trace = layer.A_trace[group], &G_trace = layer.G_trace[group], &scale = layer.scale[group];
  if (layer.inverted) {
    const FactorNumbers &of_A = results.inverted[A], &of_G = results.inverted[G];
    A_trace = of_A.trace + of_A.damping * static_cast<float>(layer.size_A);
    G_trace = of_G.trace + of_G.damping * static_cast<float>(layer.size_G);
    scale = 1.0f;
    return;
  }
  const double trace_A = results.updated[A].trace, trace_G = results.updated[G].trace;
  const SplitDamping damping = pi_split(trace_A, layer.size_A, trace_G, layer.size_G, *results.damping, layer.splits);
  const float implied_A = A_trace + static_cast<float>(layer.alpha * trace_A);
  const float implied_G = G_trace + static_cast<float>(layer.beta * trace_G);
  const double target_A = trace_A + static_cast<double>(damping.A) * layer.size_A;
  const double target_G = trace_G + static_cast<double>(damping.G) * layer.size_G;
  // 1 for a layer without statistics, whose inverses stay identities.
  scale = layer.seen ? static_cast<float>((implied_A / target_A) * (implied_G / target_G)) : 1.0f;
  A_trace = implied_A;
  G_trace = implied_G;
}

// One block per layer. A layer is unchanged if any of its inverses was not written: a failed full refresh is repeated.
__global__ void __launch_bounds__(kNumberThreads)
    sherman_morrison_write_numbers(const __grid_constant__ ItemBatch<LayerNumbers, FactorResults> batch) {
  unsigned block;
  const LayerNumbers& layer = batch.items[batch.find(block)];
  const FactorResults& results = batch.common;
  for (int factor = layer.first_factor; factor < layer.first_factor + 2 * layer.groups; ++factor)
    if (!(layer.inverted ? results.verdicts.written(factor) : results.updated[factor].usable)) return;
  if (layer.scale != nullptr)
    for (int group = threadIdx.x; group < layer.groups; group += kNumberThreads) keep_traces(layer, results, group);
  if (threadIdx.x > 0) return;
  *layer.refreshes = layer.next_refreshes;
  *layer.full = layer.next_full;
}

}  // namespace

}  // namespace ms_kfac
