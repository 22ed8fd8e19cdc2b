// Commits staged batches: checks them, and folds them into the averages that refreshes read.
#pragma once

#include <cstdint>
#include <vector>

#include "../interface/commit_arguments.h"
#include "../interface/judge.h"

namespace ms_kfac {

struct CommitRule {
  float limit;           // epsilon / (1 - epsilon)
  float gradient_scale;  // what output gradients are multiplied with
  float product_scale;   // what a delivered gradient is divided by the sum of its passes
  Judge judge;           // null: every finite batch is committed
  int64_t handle;        // the judge's
};

// For each layer that had a pass: commits its batch or refuses it, and leaves its record empty. `measured` has
// kMeasured numbers for each layer, `outcome` is as in commit_arguments.h. The judge is called once, in the calling
// thread.
void commit_statistics(const std::vector<StagedLayer>& layers, const CommitRule& rule, const float* measured,
                       float* outcome);

}  // namespace ms_kfac
