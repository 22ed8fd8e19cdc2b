#include "threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "factor_failure.h"

namespace ms_kfac {
namespace {

// Whether this thread is inside parallel_for. Locking a mutex twice in one thread is undefined behavior.
thread_local bool inside = false;

class Pool {
 public:
  void resize(int threads) { threads_ = std::max(threads, 1); }
  int threads() const { return threads_; }

  void run(int64_t count, const std::function<void(int64_t)>& task) {
    // A single task leaves the pool free for its own parallel_for calls.
    const int helpers = static_cast<int>(std::min<int64_t>(threads_, count)) - 1;
    std::unique_lock<std::mutex> ownership(owner_, std::defer_lock);
    if (helpers < 1 || inside || !ownership.try_lock()) {
      for (int64_t index = 0; index < count; ++index) task(index);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      // Threads are detached and never end. A forked child has none of them and must not wait for them when it exits.
      for (; started_ < helpers; ++started_) std::thread([this, index = started_] { work(index); }).detach();
      task_ = &task;
      count_ = count;
      next_ = 0;
      failure_ = nullptr;
      wanted_ = helpers;
      open_ = true;
      ++round_;
    }
    wake_.notify_all();
    take(task, count);
    std::unique_lock<std::mutex> lock(mutex_);
    // Short calls are done before the helpers are awake, on a busy machine long before. Those are not waited for.
    open_ = false;
    done_.wait(lock, [this] { return active_ == 0; });
    if (failure_) failure_();
  }

 private:
  void work(int index) {
    uint64_t seen = 0;
    for (;;) {
      const std::function<void(int64_t)>* task;
      int64_t count;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen && index < wanted_; });
        seen = round_;
        if (!open_) continue;
        ++active_;
        task = task_;
        count = count_;
      }
      take(*task, count);
      bool last;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        last = --active_ == 0;
      }
      if (last) done_.notify_one();
    }
  }

  void take(const std::function<void(int64_t)>& task, int64_t count) {
    inside = true;
    for (;;) {
      const int64_t index = next_.fetch_add(1);
      if (index >= count) break;
      try {
        task(index);
      } catch (const FactorFailure& failure) {
        keep([failure] { throw failure; });
      } catch (const std::exception& error) {
        keep([message = std::string(error.what())] { throw std::runtime_error(message); });
      }
    }
    inside = false;
  }

  void keep(std::function<void()> failure) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
  }

  std::atomic<int> threads_{static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u))};
  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int64_t)>* task_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  // Throws. std::exception_ptr of GCC 11 and newer would need a newer libstdc++ than that of manylinux_2_28.
  std::function<void()> failure_;
  // Whether helpers may still join the round.
  bool open_ = false;
  int started_ = 0, wanted_ = 0, active_ = 0;
  uint64_t round_ = 0;
};

Pool* instance = new Pool;

// A forked child has a copy of the pool but none of its threads, so it creates a new pool.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] {
  const int threads = instance->threads();
  instance = new Pool;
  instance->resize(threads);
});

}  // namespace

int threads() { return instance->threads(); }

void set_threads(int count) { instance->resize(count); }

void parallel_for(int64_t count, const std::function<void(int64_t)>& task) { instance->run(count, task); }

}  // namespace ms_kfac
