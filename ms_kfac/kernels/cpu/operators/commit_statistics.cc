// Commits the staged batches of all layers to their averages if a commit is due. Attributes, inputs and output: see
// interface/commit_arguments.h.

#include "../statistics/commit_statistics.h"

#include "../operator.h"

using CommitStatisticsAttributes = ms_kfac::CommitAttributes;

MS_KFAC_OPERATOR(CommitStatistics) {
  if (arguments[0].integers()[0] == 0) return;
  const std::vector<ms_kfac::StagedLayer> layers = ms_kfac::staged_layers(arguments, attributes);
  const float* scales = arguments[1].floats();
  const ms_kfac::CommitRule rule{attributes.limit, scales[0], scales[1],
                                 attributes.judge != 0 ? ms_kfac::judge() : nullptr, attributes.judge};
  ms_kfac::commit_statistics(layers, rule, arguments[2].floats(), arguments[4].floats());
}
