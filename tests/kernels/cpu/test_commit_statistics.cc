// Tests commits of staged batches: the averages' keep rule, refusals, roots, weights of only the last batch, and the
// judge's input and answers.

#include "../../../ms_kfac/kernels/interface/pass_kernels.h"
#include "check.h"
#include "statistics/commit_statistics.h"

namespace {

using namespace ms_kfac;

// A few roundings of float32.
constexpr double kTolerance = 1e-6;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

// A layer with one weight per array. Each array has an average.
struct Layer {
  Layer(int weights, int64_t groups, int64_t dimension)
      : groups(groups),
        dimension(dimension),
        record(kStagedWeights + weights),
        weight(weights),
        past(weights),
        samples(weights) {
    samples[0] = 1;
    record[kPeriod] = 1;
    for (int index = 0; index < weights; ++index) {
      staged.push_back(check::normal(groups * dimension * dimension, 10 + index));
      average.push_back(check::normal(groups * dimension * dimension, 20 + index));
    }
  }

  void stage(float passes, const std::vector<float>& weights) {
    record[kPasses] = passes;
    record[kProduct] = 2.0f;
    record[kProducts] = 3.0f;
    record[kScale] = 5.0f;
    std::copy(weights.begin(), weights.end(), record.begin() + kStagedWeights);
  }

  StagedLayer view() {
    StagedLayer layer{
        record.data(), weight.data(), past.data(), &calls, samples.data(), static_cast<int>(weight.size()),
        false,         false,         0.0f,        {}};
    for (size_t index = 0; index < staged.size(); ++index)
      layer.arrays.push_back({staged[index].data(), average[index].empty() ? nullptr : average[index].data(),
                              static_cast<int64_t>(staged[index].size()), groups, dimension, static_cast<int>(index),
                              2 * static_cast<int>(index)});
    return layer;
  }

  int64_t groups, dimension;
  std::vector<float> record, weight, past;
  std::vector<int64_t> samples;
  float calls = 1.0f;
  std::vector<std::vector<float>> staged, average;
};

const CommitRule kRule{19.0f, 0.5f, 0.25f, nullptr, 0};
const std::vector<float> kMeasuredNumbers = {11, 12, 13, 14, 15, 16};

std::vector<float> commit(const std::vector<StagedLayer>& layers, const CommitRule& rule = kRule) {
  std::vector<float> outcome(1 + layers.size());
  commit_statistics(layers, rule, kMeasuredNumbers.data(), outcome.data());
  return outcome;
}

std::vector<double> folded(const std::vector<float>& average, double keep, const std::vector<float>& staged,
                           double factor) {
  std::vector<double> expected;
  for (size_t i = 0; i < average.size(); ++i)
    expected.push_back((keep == 0 ? 0 : keep * average[i]) + factor * staged[i]);
  return expected;
}

void require_empty_record(const Layer& layer, float period) {
  for (size_t index = 0; index < layer.record.size(); ++index)
    require(layer.record[index] == (index == kPeriod ? period : 0.0f), "the record is not empty");
}

// Without a past, a commit discards the old averages. Then it keeps them fully until the weight of the past reaches the
// limit.
void test_keep_rule() {
  Layer layer(2, 1, 260);
  std::fill(layer.average[0].begin(), layer.average[0].end(), NAN);
  double past = 0, weight = 0;
  for (int step = 0; step < 30; ++step) {
    const float count = 4.0f + static_cast<float>(step);
    layer.stage(1, {count, 3.0f});
    const double keep = step == 0 ? 0.0 : std::fmin(1.0, 19.0 / past);
    past = keep * past + 1;
    weight = keep * weight + count;
    const std::vector<double> A = folded(layer.average[0], keep, layer.staged[0], 1.0),
                              G = folded(layer.average[1], keep, layer.staged[1], 0.25);
    const std::vector<float> outcome = commit({layer.view()});
    require(outcome == std::vector<float>({0.0f, 1.0f}), "a commit has the wrong outcome");
    check::close("A", layer.average[0].data(), A, kTolerance);
    check::close("G", layer.average[1].data(), G, kTolerance);
    check::close("weight", layer.weight.data(), {weight}, 1e-5);
    check::close("past", layer.past.data(), {past}, 1e-5);
    require_empty_record(layer, 1.0f);
  }
  require(std::fabs(past - 20) < 1e-4, "the weight of the past does not reach the limit");
}

void test_what_is_not_staged_stays() {
  Layer layer(2, 1, 3), idle(2, 1, 3);
  layer.weight = {6.0f, 7.0f};
  layer.past = {2.0f, 2.0f};
  const std::vector<float> A = layer.average[0], of_idle = idle.average[0];
  layer.staged[0][0] = NAN;
  layer.stage(1, {0.0f, 3.0f});
  const std::vector<float> outcome = commit({layer.view(), idle.view()});
  require(outcome == std::vector<float>({0.0f, 1.0f, 0.0f}), "the wrong layers have statistics");
  require(layer.average[0] == A && layer.weight[0] == 6.0f && layer.past[0] == 2.0f,
          "A changed although it was not staged");
  require(layer.weight[1] == 10.0f && layer.past[1] == 3.0f, "G did not change although it was staged");
  require(idle.average[0] == of_idle && idle.past[0] == 0.0f, "a layer without a pass changed");
  require_empty_record(idle, 1.0f);
}

void test_not_finite_is_refused() {
  for (const float wrong : {NAN, INFINITY}) {
    for (int place : {0, 1, 2}) {
      Layer layer(2, 2, 5);
      layer.weight = {6.0f, 7.0f};
      layer.past = {2.0f, 3.0f};
      layer.stage(1, {1.0f, 1.0f});
      const std::vector<float> A = layer.average[0], G = layer.average[1];
      // The last number of the second group's diagonal, or the numbers that the check reads.
      if (place == 0) layer.staged[1].back() = wrong;
      if (place == 1) layer.record[kProduct] = wrong;
      if (place == 2) layer.record[kScale] = wrong;
      const std::vector<float> outcome = commit({layer.view()});
      require(outcome == std::vector<float>({1.0f, 1.0f}), "a refusal has the wrong outcome");
      require(layer.average[0] == A && layer.average[1] == G, "a refused batch was committed");
      require(layer.weight == std::vector<float>({6.0f, 7.0f}) && layer.past == std::vector<float>({2.0f, 3.0f}),
              "a refused batch changed the weights");
      require_empty_record(layer, 1.0f);
    }
  }
  // All numbers are checked if the diagonal does not suffice.
  Layer layer(1, 1, 300);
  layer.stage(1, {1.0f});
  layer.staged[0][89999 - 1] = NAN;
  StagedLayer view = layer.view();
  require(commit({view})[0] == 0.0f, "more than the diagonal was checked");
  layer.stage(1, {1.0f});
  view.arrays[0].matrices = view.arrays[0].dimension = 0;
  require(commit({view})[0] == 1.0f, "not all numbers were checked");
}

// Arrays without an average have the last batch's weight, and weight 0 after a refusal. The same holds for a weight
// without arrays.
void test_not_averaged() {
  Layer layer(3, 1, 4);
  layer.average[0].clear();
  layer.average[1].clear();
  layer.staged.pop_back();
  layer.average.pop_back();
  layer.weight = {100.0f, 100.0f, 100.0f};
  layer.past = {5.0f, 5.0f, 5.0f};
  layer.stage(2, {8.0f, 8.0f, 3.0f});
  commit({layer.view()});
  check::close("weights", layer.weight.data(), {8.0, 8.0 / 0.25, 3.0}, kTolerance);
  layer.stage(1, {8.0f, 8.0f, 3.0f});
  layer.staged[1][0] = NAN;
  require(commit({layer.view()}) == std::vector<float>({1.0f, 0.0f}), "a refused layer has statistics");
  require(layer.weight == std::vector<float>(3, 0.0f), "the weights of a refused batch are not 0");
}

void test_roots() {
  const int64_t groups = 2, d = 3;
  for (bool homogeneous : {false, true}) {
    std::vector<float> record(kStagedWeights + 1), weight{3.0f}, past{38.0f};
    const std::vector<float> Phi = check::normal(groups * d * d, 1), Psi = check::normal(groups, 2);
    std::vector<float> staged_Phi = Phi, staged_Psi = Psi, staged_delta = {40.0f, 0.0f};
    std::vector<float> average_Phi = check::normal(groups * d * d, 3), average_Psi = check::normal(groups, 4);
    std::vector<float> traces = {1.0f, 2.0f, 3.0f, 4.0f};
    record[kPasses] = record[kPeriod] = 1;
    const double keep = 0.5, squared = 0.25, floor = 0.01f;
    // Two calls of the layer have the same samples.
    record[kStagedWeights] = 10.0f;
    float calls = 2.0f;
    const int64_t samples = 1;
    std::vector<double> expected_Phi, expected_Psi, expected_traces(4);
    for (int64_t group = 0; group < groups; ++group) {
      const double delta = squared * staged_delta[group] / 5, floored = std::fmax(delta, floor);
      const double factor = squared * std::sqrt(floored) / std::fmax(delta, 1e-30);
      for (int64_t i = group * d * d; i < (group + 1) * d * d; ++i) {
        // If the trace is zero, so are the sums.
        if (group == 1) staged_Phi[i] = 0.0f;
        expected_Phi.push_back(keep * average_Phi[i] + (group == 1 ? 0.0 : factor * staged_Phi[i]));
      }
      if (group == 1) staged_Psi[group] = 0.0f;
      expected_Psi.push_back(keep * average_Psi[group] + (group == 1 ? 0.0 : factor * staged_Psi[group]));
      expected_traces[group] = keep * traces[group] + 5 * delta;
      expected_traces[groups + group] =
          keep * traces[groups + group] + 5 * (homogeneous ? std::sqrt(floored) : floored);
    }
    const StagedLayer layer{record.data(),
                            weight.data(),
                            past.data(),
                            &calls,
                            &samples,
                            1,
                            true,
                            homogeneous,
                            static_cast<float>(floor),
                            {{staged_Phi.data(), average_Phi.data(), groups * d * d, groups, d, 0, 2},
                             {staged_Psi.data(), average_Psi.data(), groups, groups, 1, 0, 2},
                             {staged_delta.data(), traces.data(), groups, 0, 0, 0, 2}}};
    commit({layer});
    check::close("Phi", average_Phi.data(), expected_Phi, kTolerance);
    check::close("Psi", average_Psi.data(), expected_Psi, kTolerance);
    check::close("traces", traces.data(), expected_traces, kTolerance);
    check::close("weight", weight.data(), {0.5 * 3 + 5}, kTolerance);
  }
}

std::vector<float> told;
std::vector<int64_t> answers;
int calls = 0;

void judge_by_answers(int64_t handle, int64_t layers, const float* numbers, int64_t* found) {
  require(handle == 42, "the judge got the wrong handle");
  ++calls;
  told.assign(numbers, numbers + layers * kJudgedNumbers);
  std::copy(answers.begin(), answers.end(), found);
}

void test_judge() {
  CommitRule rule = kRule;
  rule.judge = judge_by_answers;
  rule.handle = 42;
  Layer accepted(1, 1, 2), refused(1, 1, 2);
  for (Layer* layer : {&accepted, &refused}) {
    layer->weight = {6.0f};
    layer->past = {2.0f};
    layer->stage(2, {1.0f});
  }
  refused.staged[0][0] = INFINITY;
  const std::vector<float> before = refused.average[0];
  // An answer can't commit a batch that is not finite.
  answers = {1, 4, 4, 0, 1, 1, 1, 0};
  // Two calls, then one of them again: a micro-batch.
  for (int kernel : {0, 1, 0}) PassKernels::note(refused.record.data(), &told + kernel);
  commit({accepted.view(), refused.view()}, rule);
  require(calls == 1, "the judge was not called exactly once");
  require(told == std::vector<float>(
                      {2, 1, 0.5f, 0.75f, 1.25f, 11, 12, 13, 1, 0, 2, 1, 0.5f, 0.75f, 1.25f, 14, 15, 16, 0, 2}),
          "the judge got the wrong numbers");
  require(accepted.weight[0] == 6.25f && refused.weight[0] == 6.0f, "answer 1 did not commit the batch");
  require(accepted.calls == 4.0f, "the calls of the answer were not kept");
  require_empty_record(accepted, 4.0f);
  refused.staged[0][0] = 1.0f;
  accepted.stage(1, {1.0f});
  refused.stage(1, {1.0f});
  answers = {0, 1, 1, 2, -1, 1, 1, 0};
  require(commit({accepted.view(), refused.view()}, rule) == std::vector<float>({1.0f, 1.0f, 0.0f}),
          "a batch that the judge refuses was not counted");
  require(accepted.weight[0] == 6.25f && accepted.past[0] == 3.0f, "answer 0 did not refuse the batch");
  require(refused.weight[0] == 0.0f && refused.past[0] == 0.0f && refused.average[0] == before,
          "answer -1 did not clear the weights");
  require(accepted.record[kPasses] == -2.0f, "the passes to skip were not recorded");
  accepted.record[kPasses] = 0.0f;
  require_empty_record(accepted, 1.0f);
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  test_keep_rule();
  test_what_is_not_staged_stays();
  test_not_finite_is_refused();
  test_not_averaged();
  test_roots();
  test_judge();
}
