// Reads numbers that are scattered in device memory: one small launch gathers them, one copy moves them to the host.
//
//   NumberList list;
//   const int due = list.add(arguments[0].integers(), layers);
//   const int count = list.add(arguments[3].floats());
//   const HostNumbers numbers = gathered.read(list, call);
//   if (numbers.integer(due) != 0 && numbers.number(count) > 0) ...
//
// read_on_host() needs no launch where all numbers are contiguous.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../operator.h"
#include "item_batch.h"

namespace ms_kfac {

// Contiguous 32-bit numbers in device memory, and their index among the gathered numbers.
struct NumberSpan {
  const uint32_t* from;
  int place, count;

  int64_t blocks() const { return 1; }
};

namespace {

struct GatherTo {
  uint32_t* numbers;
};

constexpr int kGatherThreads = 32;

__global__ void gather_numbers(const __grid_constant__ ItemBatch<NumberSpan, GatherTo> batch) {
  unsigned block;
  const NumberSpan& span = batch.items[batch.find(block)];
  for (int i = threadIdx.x; i < span.count; i += kGatherThreads) batch.common.numbers[span.place + i] = span.from[i];
}

}  // namespace

// The numbers that a call reads.
class NumberList {
 public:
  // Adds contiguous numbers. Returns the index of the first.
  int add(const float* numbers, int count = 1) { return add_span(numbers, count); }
  int add(const int32_t* numbers, int count = 1) { return add_span(numbers, count); }

  const std::vector<NumberSpan>& spans() const { return spans_; }
  int size() const { return size_; }

 private:
  int add_span(const void* numbers, int count) {
    spans_.push_back({static_cast<const uint32_t*>(numbers), size_, count});
    size_ += count;
    return spans_.back().place;
  }

  std::vector<NumberSpan> spans_;
  int size_ = 0;
};

// The numbers that were read, addressed by the indices that the list returned.
class HostNumbers {
 public:
  explicit HostNumbers(std::vector<uint32_t> words) : words_(std::move(words)) {}

  float number(int index) const {
    float value;
    std::memcpy(&value, &words_.at(index), sizeof value);
    return value;
  }
  int32_t integer(int index) const { return static_cast<int32_t>(words_.at(index)); }

 private:
  std::vector<uint32_t> words_;
};

class GatheredNumbers {
 public:
  // Accepts lists of at most `capacity` numbers.
  GatheredNumbers(AotExtra& extra, int capacity)
      : capacity_(capacity), workspace_(add_workspace(extra, capacity * sizeof(uint32_t))) {}

  // Synchronizes the stream.
  HostNumbers read(const NumberList& list, const Call& call) const {
    if (list.size() > capacity_)
      throw std::invalid_argument("a call reads " + std::to_string(list.size()) +
                                  " numbers; the kernel was created for " + std::to_string(capacity_));
    auto* gathered = call.workspace<uint32_t>(workspace_);
    launch_items(gather_numbers, list.spans(), GatherTo{gathered}, kGatherThreads, call.stream);
    std::vector<uint32_t> words(list.size());
    if (!words.empty()) read_on_host(gathered, list.size(), words.data(), call.stream);
    return HostNumbers(std::move(words));
  }

 private:
  int capacity_, workspace_;
};

}  // namespace ms_kfac
