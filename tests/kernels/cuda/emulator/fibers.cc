#include "fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <numeric>

#include "races.h"

__thread uint3 threadIdx, blockIdx;

namespace emulator {
namespace {

constexpr size_t kStack = 256 << 10, kMostThreads = 1024;
__thread BlockRunner* of_this_thread = nullptr;

}  // namespace

BlockRunner* BlockRunner::current() { return of_this_thread; }

BlockRunner::BlockRunner() {
  // Pages take memory only once a fiber uses them.
  void* stacks = mmap(nullptr, kStack * kMostThreads, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (stacks == MAP_FAILED) std::abort();
  stacks_ = static_cast<char*>(stacks);
  of_this_thread = this;
}

bool BlockRunner::in_stacks(const void* address) const {
  const char* byte = static_cast<const char*>(address);
  return byte >= stacks_ && byte < stacks_ + kStack * kMostThreads;
}

void BlockRunner::enter() {
  BlockRunner& own = *of_this_thread;
  (*own.body_)();
  own.current_->finished = true;
  ++own.progress_;
  own.leave(own.barrier_);
  own.leave(own.current_->warp->barrier);
  _longjmp(own.scheduler_, 1);
}

void BlockRunner::start(int thread) {
  Fiber& fiber = fibers_[thread];
  const unsigned x = thread % blockDim.x, rest = thread / blockDim.x;
  fiber.number = thread;
  fiber.index = {x, rest % blockDim.y, rest / blockDim.y};
  fiber.warp = &warps_[thread / kWarp];
  ++fiber.warp->barrier.live;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stacks_ + thread * kStack;
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
}

void BlockRunner::step(Fiber& fiber) {
  current_ = &fiber;
  threadIdx = fiber.index;
  if (_setjmp(scheduler_) != 0) return;
  if (fiber.started) _longjmp(fiber.resume, 1);
  fiber.started = true;
  setcontext(&fiber.context);
}

void BlockRunner::yield() {
  if (_setjmp(current_->resume) == 0) _longjmp(scheduler_, 1);
}

void BlockRunner::release(Barrier& barrier) {
  barrier.waiting = 0;
  ++barrier.generation;
  ++progress_;
}

void BlockRunner::leave(Barrier& barrier) {
  --barrier.live;
  stuck_ = stuck_ || (barrier.live > 0 && barrier.waiting == barrier.live);
}

// Lets the polling fibers poll until the block goes on.
bool BlockRunner::poll(const std::function<bool()>& wait) {
  const unsigned long before = progress_;
  while (progress_ == before) {
    if (!wait()) return false;
    const std::vector<Fiber*> polling = std::move(polling_);
    polling_.clear();
    for (Fiber* fiber : polling) step(*fiber);
    if (polling_.size() < polling.size()) break;
  }
  return true;
}

End BlockRunner::run(int threads, const std::function<void()>& body, std::minstd_rand& random,
                     const std::function<bool()>& goes_on, const std::function<bool()>& wait) {
  fibers_.assign(threads, Fiber{});
  warps_.assign((threads + kWarp - 1) / kWarp, Warp{});
  barrier_ = Barrier{};
  barrier_.live = threads;
  body_ = &body;
  stuck_ = false;
  for (int thread = 0; thread < threads; ++thread) start(thread);
  std::vector<int> order(threads);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  for (int left = threads; left > 0;) {
    const unsigned long before = progress_;
    polling_.clear();
    left = 0;
    for (const int thread : order) {
      Fiber& fiber = fibers_[thread];
      if (!fiber.finished) step(fiber);
      left += !fiber.finished;
      if (stuck_) return End::kStuck;
      if (!goes_on()) return End::kAbandoned;
    }
    if (left == 0 || progress_ != before) continue;
    if (polling_.empty()) return End::kStuck;
    if (!poll(wait)) return End::kAbandoned;
  }
  return End::kFinished;
}

void BlockRunner::wait_for_block() {
  if (++barrier_.waiting == barrier_.live) {
    races::barrier();
    return release(barrier_);
  }
  const unsigned generation = barrier_.generation;
  while (barrier_.generation == generation) yield();
}

// The last lane to arrive continues at once; the others continue when they are resumed.
void BlockRunner::with_warp(void* own, void (*work)(void** of_lane)) {
  Warp& warp = *current_->warp;
  warp.of_lane[current_->number % kWarp] = own;
  if (++warp.barrier.waiting == warp.barrier.live) {
    work(warp.of_lane);
    for (void*& pointer : warp.of_lane) pointer = nullptr;
    return release(warp.barrier);
  }
  const unsigned generation = warp.barrier.generation;
  while (warp.barrier.generation == generation) yield();
}

void BlockRunner::pause() {
  polling_.push_back(current_);
  yield();
}

}  // namespace emulator
