// Device memory for the counters of counters.h. Each translation unit that includes this file takes one megabyte of it.
#pragma once

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>

#include "launch.h"

namespace ms_kfac {
namespace {

constexpr int kCounters = 1 << 18;
__device__ unsigned counter_memory[kCounters];

// Host only. The counters that no kernel holds, per translation unit.
class FreeCounters {
 public:
  // Never destroyed: at process exit MindSpore may destroy kernels after the library's static objects.
  static FreeCounters& all() {
    static auto* counters = new FreeCounters;
    return *counters;
  }

  int take(int count) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto range = ranges_.begin(); range != ranges_.end(); ++range) {
      const auto [first, size] = *range;
      if (size < count) continue;
      ranges_.erase(range);
      if (size > count) ranges_[first + count] = size - count;
      return first;
    }
    throw std::runtime_error("too many kernels: their counters are used up");
  }

  void give_back(int first, int count) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto range = ranges_.emplace(first, count).first;
    const auto next = std::next(range);
    if (next != ranges_.end() && next->first == first + count) {
      range->second += next->second;
      ranges_.erase(next);
    }
    if (range == ranges_.begin()) return;
    const auto before = std::prev(range);
    if (before->first + before->second != first) return;
    before->second += range->second;
    ranges_.erase(range);
  }

 private:
  std::mutex mutex_;
  std::map<int, int> ranges_{{0, kCounters}};  // first, count
};

// A kernel's counters, held for the kernel's lifetime. The next owner's calls are launched after the last call of this
// one. So the counters are then zero, or hold the numbers of earlier calls.
class CounterRange {
 public:
  explicit CounterRange(int64_t count) : count_(at_least_one(count)), first_(FreeCounters::all().take(count_)) {}
  ~CounterRange() { FreeCounters::all().give_back(first_, count_); }
  CounterRange(const CounterRange&) = delete;
  CounterRange& operator=(const CounterRange&) = delete;

  unsigned* device() const { return device_memory() + first_; }

 private:
  static int at_least_one(int64_t count) { return static_cast<int>(std::clamp<int64_t>(count, 1, kCounters + 1)); }
  static unsigned* device_memory() {
#ifdef __CUDACC__
    void* address = nullptr;
    check(cudaGetSymbolAddress(&address, counter_memory), "getting the address of the counters");
    return static_cast<unsigned*>(address);
#else
    return counter_memory;
#endif
  }

  int count_, first_;
};

}  // namespace
}  // namespace ms_kfac
