// The launches of a commit: check the staged arrays for NaN and infinity, decide about each layer, update the averages,
// report the commit. If no commit is due, all blocks return at once.
#pragma once

#include "../../interface/commit_arguments.h"
#include "../../interface/judge.h"
#include "../scheduling/array_chunks.h"
#include "../scheduling/item_batch.h"
#include "judged_commits.h"

namespace ms_kfac {

// Parameters of the commit that all layers share. All pointers are device pointers.
struct Commit {
  const int32_t* due;
  const float *scales, *measured;
  float *outcome, *calls;
  // One word per layer: the number of the last call that found NaN or infinity. One word for all layers: the number of
  // the last call that refused a batch. Each call has its own number, so the words need no reset.
  unsigned* words;
  unsigned call;
  int layers;
  float limit;
  JudgedPlace judged;

  __device__ void fail(int layer) const {
    atomicMax(words + layer, call);
    atomicMax(words + layers, call);
  }
};

struct InspectedArray {
  const float *staged, *record;
  int64_t count;      // elements that are checked
  int64_t dimension;  // of the matrices whose diagonals are checked; 0: all elements are checked
  int weight, layer;

  int64_t blocks() const { return chunks(count); }
};

// How the arrays of one weight are averaged. Nothing is averaged where the staged weight is 0.
struct WeightPlan {
  float keep, staged;
};

// Values of DecidedLayer::powers for weights of averaged arrays and for weights without an array.
constexpr int8_t kOfAverages = -1, kOfNoArray = -2;

struct DecidedLayer {
  static constexpr int kMostWeights = 8;

  float *record, *weights, *past;
  WeightPlan* plans;
  // Set for a layer that averages roots, else null.
  const float* traces;
  float* trace_averages;
  int groups;
  float floor;
  bool homogeneous;
  int weight_count, layer, answer;
  float period, calls;  // of the next passes; 0: unchanged
  float skipped;        // of the next passes
  float kernels;        // that staged the passes
  // Per weight: the power of the arrays that are not averaged, or one of the constants above.
  int8_t powers[kMostWeights];
  // Per weight: whether it counts samples. Several calls of a layer in one pass are further locations of the same
  // samples.
  bool samples[kMostWeights];

  int64_t blocks() const { return 1; }
};

struct AveragedArray {
  const float* staged;
  float* average;
  int64_t size;
  const WeightPlan* plan;
  // Set for a layer that averages roots, one trace per `group_size` elements; else null.
  const float* traces;
  int64_t group_size;
  float floor;
  int power;

  int64_t blocks() const { return chunks(size); }
};

constexpr int kDecisionThreads = 64;

// The trace of a group where roots are averaged: delta = trace / N, and its root (Gao et al. 2021, equations 17 and
// 18).
struct TraceRoot {
  float delta, floored, root;

  __device__ static TraceRoot of(float scale, float trace, float samples, float floor) {
    const float delta = scale * scale * trace / samples, floored = fmaxf(delta, floor);
    return {delta, floored, sqrtf(floored)};
  }
  // The factor that multiplies the staged sums.
  __device__ float factor(float scale) const { return scale * scale * root / fmaxf(delta, 1e-30f); }
};

namespace {

__device__ inline float power_of(float scale, int power) {
  float product = 1.0f;
  for (int i = 0; i < power; ++i) product *= scale;
  return product;
}

// With keep = 0 the previous value is not read: it may be uninitialized.
__device__ inline float averaged(float keep, float before, float addend) {
  return keep == 0.0f ? addend : fmaf(keep, before, addend);
}

__global__ void __launch_bounds__(kChunkThreads)
    commit_check_finite(const __grid_constant__ ItemBatch<InspectedArray, Commit> batch) {
  if (*batch.common.due == 0) return;
  unsigned chunk;
  const InspectedArray& of = batch.items[batch.find(chunk)];
  if (!(of.record[kPasses] > 0.0f && of.record[kStagedWeights + of.weight] > 0.0f)) return;
  bool finite = true;
  if (of.dimension > 0) {
    visit_chunk(chunk, of.count, false, [&](auto, int64_t i) {
      const int64_t matrix = i / of.dimension, row = i % of.dimension;
      finite = finite && isfinite(of.staged[(matrix * of.dimension + row) * of.dimension + row]);
    });
  } else {
    visit_chunk(chunk, of.count, aligned(of.staged), [&](auto count, int64_t first) {
      const auto pack = Pack<decltype(count)::value>::load(of.staged + first);
#pragma unroll
      for (float value : pack.values) finite = finite && isfinite(value);
    });
  }
  if (!finite) batch.common.fail(of.layer);
}

__device__ inline void tell_judge(const Commit& commit, const DecidedLayer& layer, bool finite) {
  float* numbers = commit.judged.numbers + layer.layer * kJudgedNumbers;
  const float* record = layer.record;
  const float scale = commit.scales[1];
  numbers[0] = record[kPasses];
  numbers[1] = record[kPeriod];
  numbers[2] = record[kProduct] * scale;
  numbers[3] = record[kProducts] * scale;
  numbers[4] = record[kScale] * scale;
  for (int i = 0; i < kMeasured; ++i) numbers[kJudgedMeasured + i] = commit.measured[layer.layer * kMeasured + i];
  numbers[kJudgedFinite] = finite ? 1.0f : 0.0f;
  numbers[kJudgedKernels] = layer.kernels;
}

// Updates one weight and returns its plan.
__device__ inline WeightPlan decide_weight(const Commit& commit, const DecidedLayer& layer, int index, bool passed,
                                           bool committed) {
  float& weight = layer.weights[index];
  float staged = layer.record[kStagedWeights + index];
  if (layer.samples[index]) staged /= commit.calls[layer.layer];
  const int power = layer.powers[index];
  if (!committed) {
    // The staged array is the only copy of these statistics, and must not be used.
    if (passed && power != kOfAverages) weight = 0.0f;
    return {0.0f, 0.0f};
  }
  if (!(staged > 0.0f)) return {0.0f, 0.0f};
  const float keep = keep_of_past(commit.limit, weight, layer.past[index]);
  if (power != kOfAverages) {
    weight = staged / power_of(commit.scales[0], power);
    return {0.0f, 0.0f};
  }
  weight = averaged(keep, weight, staged);
  return {keep, staged};
}

// Called by one thread. Returns the plan of the first weight.
__device__ inline WeightPlan decide_layer(const Commit& commit, const DecidedLayer& layer) {
  float* record = layer.record;
  const bool passed = record[kPasses] > 0.0f;
  if (passed && !(isfinite(record[kProduct]) && isfinite(record[kScale]))) commit.fail(layer.layer);
  const bool finite = *static_cast<volatile unsigned*>(commit.words + layer.layer) != commit.call;
  if (commit.judged.numbers != nullptr) tell_judge(commit, layer, finite);
  const bool committed = passed && finite && layer.answer > 0;
  if (passed && layer.answer == 0) atomicMax(commit.words + commit.layers, commit.call);
  if (layer.calls > 0.0f) commit.calls[layer.layer] = layer.calls;
  bool any = false;
  for (int i = 0; i < layer.weight_count; ++i) {
    layer.plans[i] = decide_weight(commit, layer, i, passed, committed);
    if (layer.answer < 0) layer.weights[i] = layer.past[i] = 0.0f;
    any = any || layer.weights[i] > 0.0f;
  }
  if (any || layer.answer < 0) commit.outcome[1 + layer.layer] = any ? 1.0f : 0.0f;
  if (passed)
    for (int i = 0; i < kStagedWeights + layer.weight_count; ++i)
      if (i != kPeriod) record[i] = i == kPasses ? 0.0f - layer.skipped : 0.0f;
  if (layer.period > 0.0f) record[kPeriod] = layer.period;
  return layer.plans[0];
}

// One block per layer.
__global__ void __launch_bounds__(kDecisionThreads)
    commit_decide_layers(const __grid_constant__ ItemBatch<DecidedLayer, Commit> batch) {
  __shared__ WeightPlan first;
  const Commit& commit = batch.common;
  if (*commit.due == 0) return;
  unsigned block;
  const DecidedLayer& layer = batch.items[batch.find(block)];
  if (threadIdx.x == 0) first = decide_layer(commit, layer);
  if (layer.traces == nullptr) return;
  __syncthreads();
  const WeightPlan plan = first;
  if (!(plan.staged > 0.0f)) return;
  for (int group = threadIdx.x; group < layer.groups; group += kDecisionThreads) {
    const TraceRoot of = TraceRoot::of(commit.scales[0], layer.traces[group], plan.staged, layer.floor);
    float &traces = layer.trace_averages[group], &shifts = layer.trace_averages[layer.groups + group];
    traces = averaged(plan.keep, traces, plan.staged * of.delta);
    shifts = averaged(plan.keep, shifts, plan.staged * (layer.homogeneous ? of.root : of.floored));
  }
}

__global__ void __launch_bounds__(kChunkThreads)
    commit_update_averages(const __grid_constant__ ItemBatch<AveragedArray, Commit> batch) {
  const Commit& commit = batch.common;
  if (*commit.due == 0) return;
  unsigned chunk;
  const AveragedArray& of = batch.items[batch.find(chunk)];
  const WeightPlan plan = *of.plan;
  if (!(plan.staged > 0.0f)) return;
  const float scale = commit.scales[0], of_power = power_of(scale, of.power);
  const bool grouped = of.traces != nullptr && of.size > of.group_size;
  const auto factor_at = [&](int64_t group) {
    return of.traces == nullptr ? of_power
                                : TraceRoot::of(scale, of.traces[group], plan.staged, of.floor).factor(scale);
  };
  const float shared = factor_at(0);
  visit_chunk(chunk, of.size, aligned(of.staged, of.average), [&](auto count, int64_t first) {
    constexpr int kCount = decltype(count)::value;
    auto pack = Pack<kCount>::load(of.staged + first);
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.values[i] *= grouped ? factor_at((first + i) / of.group_size) : shared;
    if (plan.keep != 0.0f) {
      const auto average = Pack<kCount>::load(of.average + first);
#pragma unroll
      for (int i = 0; i < kCount; ++i) pack.values[i] = fmaf(plan.keep, average.values[i], pack.values[i]);
    }
    pack.store(of.average + first);
  });
}

// Reports the commit. One thread does the work.
__global__ void __launch_bounds__(32) commit_report(const __grid_constant__ Commit commit) {
  if (*commit.due == 0 || threadIdx.x > 0) return;
  if (commit.words[commit.layers] == commit.call) *commit.outcome += 1.0f;
  if (commit.judged.written == nullptr) return;
  // The host reads the numbers once it finds the word.
  __threadfence_system();
  *static_cast<volatile unsigned*>(commit.judged.written) = commit.judged.commit;
}

}  // namespace

}  // namespace ms_kfac
