// The thread pool of the kernels, one per process.
#pragma once

#include <cstdint>
#include <functional>

namespace ms_kfac {

// The number of threads that a kernel uses, including the caller.
int threads();
void set_threads(int count);

// Calls task(0), ..., task(count - 1), each once, on the pool and on the calling thread. Returns when all tasks are
// done. Tasks start in order, so put the largest first. Runs on the calling thread alone if called from inside a task
// or while another operator uses the pool. The first exception of a task is thrown again: as
// FactorFailure, or as std::runtime_error with the same message.
void parallel_for(int64_t count, const std::function<void(int64_t)>& task);

}  // namespace ms_kfac
