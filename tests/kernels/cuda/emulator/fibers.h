// The threads of one block as fibers of one OS thread.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <functional>
#include <random>
#include <vector>

#include "cuda_runtime.h"

namespace emulator {

constexpr int kWarp = 32;

struct Barrier {
  int live = 0, waiting = 0;
  unsigned generation = 0;
};

struct Warp {
  Barrier barrier;
  void* of_lane[kWarp] = {};
};

struct Fiber {
  ucontext_t context;
  jmp_buf resume;
  bool started = false, finished = false;
  int number = 0;
  uint3 index;
  Warp* warp = nullptr;
};

// How a block ended.
enum class End { kFinished, kStuck, kAbandoned };

// Runs blocks one after the other, in the OS thread that created it.
class BlockRunner {
 public:
  // The runner of this OS thread; null in a thread that runs no blocks.
  static BlockRunner* current();

  BlockRunner();
  // wait() is called while the block can only wait for other blocks. goes_on() is called between the steps of threads.
  // A block is abandoned where one of them returns false. kStuck: threads wait for one another.
  End run(int threads, const std::function<void()>& body, std::minstd_rand& random,
          const std::function<bool()>& goes_on, const std::function<bool()>& wait);

  // Called by fibers.
  void wait_for_block();
  void with_warp(void* own, void (*work)(void** of_lane));
  void pause();

  const Fiber& fiber() const { return *current_; }
  // Barriers that the block has passed.
  unsigned barriers() const { return barrier_.generation; }
  // Whether an address is in the stack of a fiber.
  bool in_stacks(const void* address) const;

 private:
  [[noreturn]] static void enter();
  void start(int thread);
  void step(Fiber& fiber);
  void yield();
  void release(Barrier& barrier);
  void leave(Barrier& barrier);
  bool poll(const std::function<bool()>& wait);

  char* stacks_ = nullptr;
  jmp_buf scheduler_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  Barrier barrier_;
  const std::function<void()>* body_ = nullptr;
  Fiber* current_ = nullptr;
  // Fibers whose last step ended in pause().
  std::vector<Fiber*> polling_;
  unsigned long progress_ = 0;
  bool stuck_ = false;
};

}  // namespace emulator
