// Schedules matrices of very different sizes on the threads, largest first (LPT).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../linalg/blas.h"
#include "threads.h"

namespace ms_kfac {

// Below this cost (a matrix of 256 rows) OpenBLAS's own threads cost more than they save.
constexpr double kSharedCost = 256.0 * 256.0 * 256.0;

// Calls run(task) for each task, the most expensive first. Normally each task has one thread. A task that would outlast
// all the others on one thread uses all threads inside OpenBLAS. Such tasks run first, one after the other.
template <typename Task, typename Cost, typename Run>
void run_largest_first(std::vector<Task>& tasks, Cost cost, Run run) {
  std::sort(tasks.begin(), tasks.end(), [&](const Task& one, const Task& other) { return cost(one) > cost(other); });
  double remaining = 0;
  for (const Task& task : tasks) remaining += cost(task);
  size_t alone = 0;
  for (; alone < tasks.size(); ++alone) {
    Task& task = tasks[alone];
    if (threads() == 1 || cost(task) < kSharedCost || cost(task) * threads() <= remaining) break;
    remaining -= cost(task);
    blas::Threads guard(threads());
    run(task);
  }
  parallel_for(static_cast<int64_t>(tasks.size() - alone), [&](int64_t index) { run(tasks[alone + index]); });
}

}  // namespace ms_kfac
