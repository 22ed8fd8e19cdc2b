#include "commit_statistics.h"

#include <algorithm>
#include <cmath>

#include "../../interface/pass_kernels.h"
#include "../linalg/finite.h"
#include "../threads/multiversion.h"
#include "../threads/threads.h"

namespace ms_kfac {
namespace {

constexpr int64_t kChunk = 1 << 15;
// Below this trace the sums are zero, too.
constexpr double kSmallestTrace = 1e-30;

bool had_pass(const StagedLayer& layer) { return layer.record[kPasses] > 0.0f; }

float staged_weight(const StagedLayer& layer, int weight) { return layer.record[kStagedWeights + weight]; }

// In a sum of outer products NaN or infinity anywhere also appears in the diagonal.
bool diagonals_finite(const StagedArray& array) {
  const int64_t size = array.dimension * array.dimension;
  for (int64_t matrix = 0; matrix < array.matrices; ++matrix)
    for (int64_t i = 0; i < array.dimension; ++i)
      if (!std::isfinite(array.staged[matrix * size + i * (array.dimension + 1)])) return false;
  return true;
}

// Per layer, whether its whole staged batch is finite.
std::vector<char> finite_layers(const std::vector<StagedLayer>& layers) {
  struct Part {
    size_t layer;
    const StagedArray* array;
    int64_t first, count;
  };
  std::vector<Part> parts;
  std::vector<char> finite(layers.size());
  for (size_t index = 0; index < layers.size(); ++index) {
    const StagedLayer& layer = layers[index];
    finite[index] = std::isfinite(layer.record[kProduct]) && std::isfinite(layer.record[kScale]);
    if (!had_pass(layer)) continue;
    for (const StagedArray& array : layer.arrays) {
      if (!(staged_weight(layer, array.weight) > 0.0f)) continue;
      const int64_t chunk = array.matrices > 0 ? array.size : kChunk;
      for (int64_t first = 0; first < array.size; first += chunk)
        parts.push_back({index, &array, first, std::min(chunk, array.size - first)});
    }
  }
  std::vector<char> fine(parts.size());
  parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t index) {
    const Part& part = parts[index];
    fine[index] = part.array->matrices > 0 ? diagonals_finite(*part.array)
                                           : all_finite(part.array->staged + part.first, part.count);
  });
  for (size_t index = 0; index < parts.size(); ++index)
    if (!fine[index]) finite[parts[index].layer] = 0;
  return finite;
}

// kAnswers numbers per layer.
std::vector<int64_t> ask(const std::vector<StagedLayer>& layers, const CommitRule& rule, const float* measured,
                         const std::vector<char>& finite) {
  std::vector<int64_t> answers;
  for (size_t index = 0; index < layers.size(); ++index) {
    answers.push_back(finite[index]);
    answers.push_back(static_cast<int64_t>(layers[index].record[kPeriod]));
    answers.push_back(static_cast<int64_t>(*layers[index].calls));
    answers.push_back(0);
  }
  if (rule.judge == nullptr) return answers;
  std::vector<float> numbers;
  for (size_t index = 0; index < layers.size(); ++index) {
    const float* record = layers[index].record;
    numbers.insert(numbers.end(), {record[kPasses], record[kPeriod], record[kProduct] * rule.product_scale,
                                   record[kProducts] * rule.product_scale, record[kScale] * rule.product_scale});
    numbers.insert(numbers.end(), measured + index * kMeasured, measured + (index + 1) * kMeasured);
    numbers.push_back(finite[index] ? 1.0f : 0.0f);
    numbers.push_back(static_cast<float>(PassKernels::take(record)));
  }
  rule.judge(rule.handle, static_cast<int64_t>(layers.size()), numbers.data(), answers.data());
  return answers;
}

// average = keep * average + factor * staged.
struct Fold {
  const float* staged;
  float* average;
  int64_t size;
  float keep, factor;
};

// Without a past the old average is overwritten instead of multiplied by 0, because it may hold NaN.
MS_KFAC_CLONES void replace(const float* __restrict staged, float factor, float* __restrict average, int64_t size) {
  for (int64_t i = 0; i < size; ++i) average[i] = factor * staged[i];
}

MS_KFAC_CLONES void fold(const float* __restrict staged, float factor, float keep, float* __restrict average,
                         int64_t size) {
  for (int64_t i = 0; i < size; ++i) average[i] = keep * average[i] + factor * staged[i];
}

void run(const std::vector<Fold>& folds) {
  struct Chunk {
    size_t fold;
    int64_t first;
  };
  std::vector<Chunk> chunks;
  for (size_t index = 0; index < folds.size(); ++index)
    for (int64_t first = 0; first < folds[index].size; first += kChunk) chunks.push_back({index, first});
  parallel_for(static_cast<int64_t>(chunks.size()), [&](int64_t task) {
    const auto [index, first] = chunks[task];
    const Fold& of = folds[index];
    const int64_t size = std::min(kChunk, of.size - first);
    if (of.keep == 0.0f)
      replace(of.staged + first, of.factor, of.average + first, size);
    else
      fold(of.staged + first, of.factor, of.keep, of.average + first, size);
  });
}

float decayed(float keep, float value) { return keep == 0.0f ? 0.0f : keep * value; }

// Averages roots of each group's block. Phi and Psi arrive as sums over n samples of |g|^2 a a' and |a|^2 g g'. They
// are scaled to the trace sqrt(delta) of the batch.
void fold_roots(const StagedLayer& layer, double scale, float keep, float count, std::vector<Fold>& folds) {
  const StagedArray &Phi = layer.arrays[0], &Psi = layer.arrays[1], &traces = layer.arrays[2];
  const int64_t groups = traces.size, size_Phi = Phi.size / groups, size_Psi = Psi.size / groups;
  const double squared = scale * scale;
  for (int64_t group = 0; group < groups; ++group) {
    const double delta = squared * traces.staged[group] / count;
    const double floored = std::fmax(delta, static_cast<double>(layer.floor)), root = std::sqrt(floored);
    const auto factor = static_cast<float>(squared * root / std::fmax(delta, kSmallestTrace));
    folds.push_back({Phi.staged + group * size_Phi, Phi.average + group * size_Phi, size_Phi, keep, factor});
    folds.push_back({Psi.staged + group * size_Psi, Psi.average + group * size_Psi, size_Psi, keep, factor});
    float* sums = traces.average + group;
    sums[0] = decayed(keep, sums[0]) + static_cast<float>(count * delta);
    sums[groups] = decayed(keep, sums[groups]) + static_cast<float>(count * (layer.homogeneous ? root : floored));
  }
}

// Whether a weight belongs to averages. A weight of arrays without an average, or of no array, describes the last batch
// only.
bool is_averaged(const StagedLayer& layer, int weight) {
  return std::any_of(layer.arrays.begin(), layer.arrays.end(),
                     [&](const StagedArray& array) { return array.weight == weight && array.average != nullptr; });
}

// The weight of the batch. Several calls of a layer in one pass are further locations of the same samples.
float batch_weight(const StagedLayer& layer, int weight) {
  const float staged = staged_weight(layer, weight);
  return layer.samples[weight] ? staged / *layer.calls : staged;
}

float last_weight(const StagedLayer& layer, int weight, double scale) {
  for (const StagedArray& array : layer.arrays)
    if (array.weight == weight) return static_cast<float>(batch_weight(layer, weight) / std::pow(scale, array.power));
  return batch_weight(layer, weight);
}

void commit(const StagedLayer& layer, const CommitRule& rule, std::vector<Fold>& folds) {
  const double scale = rule.gradient_scale;
  for (int weight = 0; weight < layer.weight_count; ++weight) {
    const float count = batch_weight(layer, weight);
    if (!(count > 0.0f)) continue;
    const float keep = keep_of_past(rule.limit, layer.weights[weight], layer.past[weight]);
    if (!is_averaged(layer, weight)) {
      layer.weights[weight] = last_weight(layer, weight, scale);
      continue;
    }
    if (layer.roots && weight == 0) {
      fold_roots(layer, scale, keep, count, folds);
    } else {
      for (const StagedArray& array : layer.arrays)
        if (array.weight == weight && array.average != nullptr)
          folds.push_back(
              {array.staged, array.average, array.size, keep, static_cast<float>(std::pow(scale, array.power))});
    }
    layer.weights[weight] = decayed(keep, layer.weights[weight]) + count;
  }
}

void refuse(const StagedLayer& layer, bool empties) {
  for (int weight = 0; weight < layer.weight_count; ++weight)
    if (empties || !is_averaged(layer, weight)) layer.weights[weight] = 0.0f;
  if (empties) std::fill_n(layer.past, layer.weight_count, 0.0f);
}

void empty(float* record, int weights, int64_t period, int64_t skipped) {
  std::fill_n(record, kStagedWeights + weights, 0.0f);
  record[kPeriod] = static_cast<float>(period);
  record[kPasses] = static_cast<float>(-skipped);
}

bool has_statistics(const StagedLayer& layer) {
  return std::any_of(layer.weights, layer.weights + layer.weight_count, [](float weight) { return weight > 0.0f; });
}

}  // namespace

void commit_statistics(const std::vector<StagedLayer>& layers, const CommitRule& rule, const float* measured,
                       float* outcome) {
  const std::vector<char> finite = finite_layers(layers);
  const std::vector<int64_t> answers = ask(layers, rule, measured, finite);
  std::vector<Fold> folds;
  bool refused = false;
  for (size_t index = 0; index < layers.size(); ++index) {
    const StagedLayer& layer = layers[index];
    if (!had_pass(layer)) continue;
    const int64_t answer = answers[index * kAnswers];
    *layer.calls = static_cast<float>(answers[index * kAnswers + 2]);
    if (answer > 0 && finite[index])
      commit(layer, rule, folds);
    else
      refuse(layer, answer < 0);
    refused = refused || !finite[index] || answer == 0;
    empty(layer.record, layer.weight_count, answers[index * kAnswers + 1], answers[index * kAnswers + 3]);
    if (answer < 0) outcome[1 + index] = 0.0f;
  }
  run(folds);
  if (refused) outcome[0] += 1.0f;
  for (size_t index = 0; index < layers.size(); ++index)
    if (has_statistics(layers[index])) outcome[1 + index] = 1.0f;
}

}  // namespace ms_kfac
