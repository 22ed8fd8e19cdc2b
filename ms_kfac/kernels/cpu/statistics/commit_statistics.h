// Commits staged batches: checks them and adds them to the averages that refreshes read.
#pragma once

#include <cstdint>
#include <vector>

#include "../../interface/commit_arguments.h"
#include "../../interface/judge.h"

namespace ms_kfac {

struct CommitRule {
  float limit;           // epsilon / (1 - epsilon)
  float gradient_scale;  // factor of output gradients
  float product_scale;   // ratio of a delivered gradient to the sum of its passes
  Judge judge;           // null: every finite batch is committed
  int64_t handle;        // of the judge
};

// Commits or refuses the batch of each layer that had a pass, and empties its record. `measured` has kMeasured numbers
// per layer. `outcome` is described in commit_arguments.h. The judge is called once, on the calling thread.
void commit_statistics(const std::vector<StagedLayer>& layers, const CommitRule& rule, const float* measured,
                       float* outcome);

}  // namespace ms_kfac
