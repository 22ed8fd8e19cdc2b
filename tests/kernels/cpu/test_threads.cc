// Tests that every task runs exactly once: for any number of tasks, from inside a task, and from several threads at the
// same time.

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include "check.h"
#include "threads/factor_failure.h"

static void expect(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
  }
}

int main(int argc, char** argv) {
  check::start(argc, argv);
  for (int count : {0, 1, 2, 3, 7, 1000}) {
    std::vector<std::atomic<int>> runs(count);
    ms_kfac::parallel_for(count, [&](int64_t index) { ++runs[index]; });
    for (const auto& run : runs) expect(run == 1, "a task did not run exactly once");
  }

  // Calls that are over before all threads are awake. Each call's memory is gone when the next one begins.
  for (int round = 0; round < 2000; ++round) {
    std::vector<int> results(round % 6);
    ms_kfac::parallel_for(round % 6, [&](int64_t index) { results[index] = round; });
    for (int result : results) expect(result == round, "a short task was lost");
  }

  std::atomic<int> nested{0};
  ms_kfac::parallel_for(4, [&](int64_t) { ms_kfac::parallel_for(5, [&](int64_t) { ++nested; }); });
  expect(nested == 20, "nested tasks were lost");

  // These tasks wait for one another, so they finish only if each has its own thread. The single task around them must
  // not occupy the pool.
  std::set<std::thread::id> threads;
  std::mutex mutex;
  std::atomic<int> arrived{0};
  ms_kfac::parallel_for(1, [&](int64_t) {
    ms_kfac::parallel_for(3, [&](int64_t) {
      const auto start = std::chrono::steady_clock::now();
      ++arrived;
      while (arrived < 3 && std::chrono::steady_clock::now() - start < std::chrono::seconds(20))
        std::this_thread::yield();
      std::lock_guard<std::mutex> lock(mutex);
      threads.insert(std::this_thread::get_id());
    });
  });
  expect(threads.size() == 3, "tasks started by a single task did not run on all threads");

  std::atomic<int> shared{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) ms_kfac::parallel_for(3, [&](int64_t) { ++shared; });
    });
  for (std::thread& caller : callers) caller.join();
  expect(shared == 4 * 200 * 3, "tasks of concurrent callers were lost");

  bool thrown = false;
  try {
    ms_kfac::parallel_for(10, [](int64_t index) {
      if (index == 7) throw std::runtime_error("seven");
    });
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  expect(thrown, "a task's exception was swallowed");
  try {
    ms_kfac::parallel_for(10, [](int64_t) { throw ms_kfac::FactorFailure("a factor", " failed"); });
    expect(false, "a factor's failure was swallowed");
  } catch (const ms_kfac::FactorFailure& failure) {
    expect(failure.name == "a factor" && failure.what() == std::string("a factor failed"), "a failure lost its name");
  }

  ms_kfac::set_threads(1);
  int alone = 0;
  ms_kfac::parallel_for(6, [&](int64_t) { ++alone; });
  expect(alone == 6, "tasks on a single thread were lost");
}
