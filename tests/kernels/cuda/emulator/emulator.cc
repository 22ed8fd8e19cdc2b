#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "cuda_runtime.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {
namespace {

constexpr size_t kStack = 256 << 10;
constexpr int kWarp = 32;

struct Barrier {
  int live = 0, waiting = 0;
  unsigned generation = 0;
};

struct Warp {
  Barrier barrier;
  void* of_lane[kWarp] = {};
};

struct Fibre {
  ucontext_t context;
  jmp_buf resume;
  bool started = false, finished = false;
  uint3 index;
  int lane;
  Warp* warp;
};

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "emulator: %s\n", what);
  std::abort();
}

// State of the current block; blocks run one at a time.
jmp_buf scheduler;
std::vector<std::unique_ptr<char[]>> stacks;
std::vector<Fibre> fibres;
std::vector<Warp> warps;
Barrier block_barrier;
Fibre* current = nullptr;
const std::function<void()>* kernel_body = nullptr;
unsigned long progress = 0;

void yield() {
  if (_setjmp(current->resume) == 0) _longjmp(scheduler, 1);
  threadIdx = current->index;
}

// Returns whether the caller is the last to arrive. It then continues at once; the others continue when they are
// resumed.
bool arrive(Barrier& barrier) { return ++barrier.waiting == barrier.live; }

void release(Barrier& barrier) {
  barrier.waiting = 0;
  ++barrier.generation;
  ++progress;
}

void leave(Barrier& barrier) {
  --barrier.live;
  if (barrier.live > 0 && barrier.waiting == barrier.live) fail("a thread returned while others wait for it");
}

void entry() {
  (*kernel_body)();
  current->finished = true;
  ++progress;
  leave(block_barrier);
  leave(current->warp->barrier);
  _longjmp(scheduler, 1);
}

void start(Fibre& fibre, char* stack) {
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = stack;
  fibre.context.uc_stack.ss_size = kStack;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, entry, 0);
}

void step(Fibre& fibre) {
  current = &fibre;
  threadIdx = fibre.index;
  if (_setjmp(scheduler) != 0) return;
  if (fibre.started) _longjmp(fibre.resume, 1);
  fibre.started = true;
  setcontext(&fibre.context);
}

void run_block(int threads, bool backwards) {
  fibres.assign(threads, Fibre{});
  warps.assign((threads + kWarp - 1) / kWarp, Warp{});
  block_barrier = Barrier{};
  block_barrier.live = threads;
  while (static_cast<int>(stacks.size()) < threads) stacks.push_back(std::make_unique<char[]>(kStack));
  for (int thread = 0; thread < threads; ++thread) {
    Fibre& fibre = fibres[thread];
    const unsigned x = thread % blockDim.x, rest = thread / blockDim.x;
    fibre.index = {x, rest % blockDim.y, rest / blockDim.y};
    fibre.lane = thread % kWarp;
    fibre.warp = &warps[thread / kWarp];
    ++fibre.warp->barrier.live;
    start(fibre, stacks[thread].get());
  }
  for (int left = threads; left > 0;) {
    const unsigned long before = progress;
    left = 0;
    for (int i = 0; i < threads; ++i) {
      Fibre& fibre = fibres[backwards ? threads - 1 - i : i];
      if (!fibre.finished) step(fibre);
      left += !fibre.finished;
    }
    if (left > 0 && progress == before) fail("threads wait for one another: a barrier that not all of them reach");
  }
}

}  // namespace

void wait_for_block() {
  if (arrive(block_barrier)) return release(block_barrier);
  const unsigned generation = block_barrier.generation;
  while (block_barrier.generation == generation) yield();
}

void with_warp(void* own, void (*work)(void** of_lane)) {
  Warp& warp = *current->warp;
  warp.of_lane[current->lane] = own;
  if (arrive(warp.barrier)) {
    work(warp.of_lane);
    for (void*& pointer : warp.of_lane) pointer = nullptr;
    return release(warp.barrier);
  }
  const unsigned generation = warp.barrier.generation;
  while (warp.barrier.generation == generation) yield();
}

void run(dim3 grid, dim3 block, const std::function<void()>& body) {
  const int threads = static_cast<int>(block.x * block.y * block.z);
  if (threads < 1 || threads > 1024 || grid.x < 1 || grid.y < 1 || grid.y > 65535 || grid.z < 1 || grid.z > 65535)
    fail("a launch that a GPU would refuse");
  const char* order = std::getenv("EMULATOR_ORDER");
  const bool backwards = order != nullptr && std::strcmp(order, "backwards") == 0;
  gridDim = grid;
  blockDim = block;
  kernel_body = &body;
  // A GPU guarantees no order of blocks either.
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = backwards ? uint3{grid.x - 1 - x, grid.y - 1 - y, grid.z - 1 - z} : uint3{x, y, z};
        run_block(threads, backwards);
      }
}

}  // namespace emulator
