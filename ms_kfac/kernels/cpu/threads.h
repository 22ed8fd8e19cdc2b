// The kernels' own threads, one pool a process.
#pragma once

#include <cstdint>
#include <functional>

namespace ms_kfac {

// How many threads a kernel uses, its caller's included.
int threads();
void set_threads(int count);

// Calls task(0), ..., task(count - 1), each once, on the pool and on the calling thread; returns when all are done.
// Tasks are handed out in order, so that the largest should come first. Called from inside a task, or while another
// operator has the pool, it runs in the calling thread. The first exception of a task is thrown again here.
void parallel_for(int64_t count, const std::function<void(int64_t)>& task);

}  // namespace ms_kfac
