// Shares threads over matrices of very different sizes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "blas.h"
#include "threads.h"

namespace ms_kfac {

// Below this cost, a matrix of 256 rows, OpenBLAS's own threads cost more than they save.
constexpr double kSharedCost = 256.0 * 256.0 * 256.0;

// Calls run(task) for each, the dearest first: one thread a task, but for those that one thread would still be at when
// the others have done all the rest. Such have every thread inside OpenBLAS, one after the other, before the rest.
template <typename Task, typename Cost, typename Run>
void run_largest_first(std::vector<Task>& tasks, Cost cost, Run run) {
  std::sort(tasks.begin(), tasks.end(), [&](const Task& one, const Task& other) { return cost(one) > cost(other); });
  double remaining = 0;
  for (const Task& task : tasks) remaining += cost(task);
  size_t alone = 0;
  for (; alone < tasks.size(); ++alone) {
    const Task& task = tasks[alone];
    if (threads() == 1 || cost(task) < kSharedCost || cost(task) * threads() <= remaining) break;
    remaining -= cost(task);
    blas::Threads guard(threads());
    run(task);
  }
  parallel_for(static_cast<int64_t>(tasks.size() - alone), [&](int64_t index) { run(tasks[alone + index]); });
}

}  // namespace ms_kfac
