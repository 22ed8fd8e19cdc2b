// Commits the staged batches of all layers to their averages. Attributes and arrays: interface/commit_arguments.h.
//
// Waiting for the device would stall each step. So the judge is asked about a commit when the next one begins: see
// judged_commits.h.

#include <atomic>

#include "../../interface/pass_kernels.h"
#include "../operator.h"
#include "../scheduling/counter_memory.h"
#include "../statistics/commit_stages.h"

namespace ms_kfac {
namespace {

// Counts the calls of all kernels, because words may still hold the number of an earlier kernel's call.
std::atomic<unsigned> calls{0};

// The work of one call.
struct Work {
  std::vector<InspectedArray> inspected;
  std::vector<DecidedLayer> layers;
  std::vector<AveragedArray> averaged;
};

class CommitStatisticsKernel {
 public:
  CommitStatisticsKernel(AotExtra& extra, const Arguments&)
      : attributes_(extra),
        words_(static_cast<int64_t>(attributes_.layers.size()) + 1),
        judged_(attributes_.judge, attributes_.layers.size()) {
    int64_t weights = 0;
    for (size_t index = 0; index < attributes_.layers.size(); ++index) {
      if (attributes_.weights[index] > DecidedLayer::kMostWeights)
        throw std::invalid_argument(attributes_.layers[index] + ": weights must be at most " +
                                    std::to_string(DecidedLayer::kMostWeights) + ", got " +
                                    std::to_string(attributes_.weights[index]));
      weights += attributes_.weights[index];
    }
    plans_ = add_workspace(extra, weights * sizeof(WeightPlan));
  }

  void run(const Call& call) {
    const Arguments& arguments = call.arguments;
    if (arguments[0].size() != 1) throw std::invalid_argument("due must be one number");
    const std::vector<StagedLayer> layers = staged_layers(arguments, attributes_);
    const Commit commit{arguments[0].integers(),
                        arguments[1].floats(),
                        arguments[2].floats(),
                        arguments[4].floats(),
                        arguments[5].floats(),
                        words_.device(),
                        ++calls,
                        static_cast<int>(layers.size()),
                        attributes_.limit,
                        judged_.begin()};
    Work work;
    WeightPlan* plans = call.workspace<WeightPlan>(plans_);
    for (const StagedLayer& layer : layers) {
      add(layer, plans, work);
      plans += layer.weight_count;
    }
    launch_items(commit_check_finite, work.inspected, commit, kChunkThreads, call.stream);
    launch_items(commit_decide_layers, work.layers, commit, kDecisionThreads, call.stream);
    launch_items(commit_update_averages, work.averaged, commit, kChunkThreads, call.stream);
    launch(commit_report, 1, 32, call.stream, commit);
  }

 private:
  void add(const StagedLayer& layer, WeightPlan* plans, Work& work) const {
    const int index = static_cast<int>(work.layers.size());
    DecidedLayer decided{};
    decided.record = layer.record;
    decided.weights = layer.weights;
    decided.past = layer.past;
    decided.plans = plans;
    decided.weight_count = layer.weight_count;
    decided.layer = index;
    decided.answer = judged_.answer(index);
    decided.period = static_cast<float>(judged_.period(index));
    decided.calls = static_cast<float>(judged_.calls(index));
    decided.skipped = static_cast<float>(judged_.skipped(index));
    decided.kernels = static_cast<float>(PassKernels::take(layer.record));
    for (int weight = 0; weight < layer.weight_count; ++weight) {
      decided.powers[weight] = power_of_weight(layer, weight);
      decided.samples[weight] = layer.samples[weight] != 0;
    }
    const StagedArray* traces = layer.roots ? &layer.arrays.at(2) : nullptr;
    if (traces != nullptr) {
      decided.traces = traces->staged;
      decided.trace_averages = traces->average;
      decided.groups = static_cast<int>(traces->size);
      decided.floor = layer.floor;
      decided.homogeneous = layer.homogeneous;
    }
    work.layers.push_back(decided);
    for (const StagedArray& array : layer.arrays) {
      const bool all = array.dimension == 0;
      work.inspected.push_back({array.staged, layer.record, all ? array.size : array.matrices * array.dimension,
                                array.dimension, array.weight, index});
      // commit_decide_layers updates the traces.
      if (array.average == nullptr || &array == traces) continue;
      const float* of_groups = traces != nullptr ? traces->staged : nullptr;
      const int64_t group_size = traces != nullptr ? array.size / traces->size : array.size;
      work.averaged.push_back({array.staged, array.average, array.size, plans + array.weight, of_groups, group_size,
                               layer.floor, array.power});
    }
  }

  static int8_t power_of_weight(const StagedLayer& layer, int weight) {
    int8_t power = kOfNoArray;
    for (const StagedArray& array : layer.arrays) {
      if (array.weight != weight) continue;
      if (array.average != nullptr) return kOfAverages;
      if (power == kOfNoArray) power = static_cast<int8_t>(array.power);
    }
    return power;
  }

  CommitAttributes attributes_;
  CounterRange words_;
  JudgedCommits judged_;
  int plans_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(CommitStatistics, ms_kfac::CommitStatisticsKernel)
