// Finds races between threads, of one block and of different ones, by CUDA's rules and not by their results.
//
// ThreadSanitizer itself knows no fences: GCC warns that atomic_thread_fence is not supported with -fsanitize=thread.
// So every wait of the kernels would be a false report. The kernels are therefore compiled with -fsanitize=thread,
// which calls a function at each access to memory, but linked with the functions of races.cc.
//
// Two accesses of different threads to the same bytes race if one of them writes, one of them is neither an atomic nor
// volatile, and nothing orders them. These order accesses:
//  - a barrier of the block, and one of the warp;
//  - a fence, then an atomic on one side; a volatile read or an atomic that reads its value, then a fence on the other.
// A fence covers what its thread has done and what barriers of the block have ordered before.
#pragma once

#include <cstddef>
#include <string>

namespace emulator {

// Ends the launch with an error.
void fail(const std::string& what);

namespace races {

#ifdef EMULATOR_RACES

void begin_launch(unsigned blocks);
void begin_block(unsigned block, int threads);
// The last thread has arrived at the barrier of its block.
void barrier();
void fence();

// The access of an atomic to a word: other atomics on it wait.
class AtomicAccess {
 public:
  AtomicAccess(const void* word, size_t size);
  ~AtomicAccess();
  AtomicAccess(const AtomicAccess&) = delete;
  AtomicAccess& operator=(const AtomicAccess&) = delete;
};

#else

inline void begin_launch(unsigned) {}
inline void begin_block(unsigned, int) {}
inline void barrier() {}
inline void fence() {}
struct AtomicAccess {
  AtomicAccess(const void*, size_t) {}
  ~AtomicAccess() {}
};

#endif

}  // namespace races
}  // namespace emulator
