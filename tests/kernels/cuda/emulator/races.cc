// The rules of races.h, as functions that code compiled with -fsanitize=thread calls.
#include "races.h"

#include <dlfcn.h>
#include <link.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "fibers.h"

namespace emulator::races {
namespace {

// What a thread knows of another block: all of its accesses before so many barriers, and those of one thread before so
// many of its fences.
struct Known {
  unsigned barriers = 0, fences = 0;
  int thread = -1;
};
// By block. Empty: nothing.
using Clock = std::vector<Known>;

void join(Clock& to, const Clock& from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (size_t block = 0; block < from.size(); ++block) {
    const Known& other = from[block];
    Known& own = to[block];
    if (other.barriers > own.barriers || (other.barriers == own.barriers && other.fences > own.fences)) own = other;
  }
}

struct Access {
  unsigned launch = 0, block = 0, barriers = 0, warp_barriers = 0, fences = 0;
  short thread = 0;
  unsigned char bytes = 0;  // of the word, one bit each
  bool write = false, strong = false;
  const void* code = nullptr;
};

// The latest accesses to four bytes.
struct Word {
  Access write, reads[3];
};
constexpr size_t kPage = 4096, kWords = kPage / 4;
struct Page {
  std::mutex mutex;
  Word words[kWords];
};

// What atomics have released at a word.
struct Released {
  unsigned launch = 0;
  Clock clock;
};

std::atomic<unsigned> launches{0};
unsigned blocks_of_launch = 0;
std::mutex released_mutex;
std::unordered_map<const void*, Released> released;
std::mutex pages_mutex;
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;

// What a thread has acquired and not passed on to its block, and what it releases.
struct Thread {
  unsigned fences = 0;
  bool has_acquired = false;
  Clock acquired, pending, released;
  // Words that were read since the last fence. This code runs before the read, so what the read acquires is only known
  // at the fence.
  std::vector<const void*> volatile_reads;
};

// State of the block of an OS thread.
struct Block {
  unsigned number = 0;
  std::vector<Thread> threads;
  Clock known;
  uintptr_t shared_first = 0, shared_last = 0;
  // Pages of shared memory, and those of global memory that were used last.
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> shared;
  std::pair<uintptr_t, Page*> recent[256] = {};
  std::minstd_rand random;
};
thread_local std::unique_ptr<Block> block;

// Thread-local storage of this library holds shared memory.
int find_storage(dl_phdr_info* info, size_t, void* found) {
  Block& of = *static_cast<Block*>(found);
  const auto code = reinterpret_cast<uintptr_t>(&find_storage);
  bool here = false;
  size_t size = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type == PT_TLS) size = part.p_memsz;
    if (part.p_type != PT_LOAD) continue;
    const uintptr_t first = info->dlpi_addr + part.p_vaddr;
    here = here || (code >= first && code < first + part.p_memsz);
  }
  if (!here || info->dlpi_tls_data == nullptr) return 0;
  of.shared_first = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
  of.shared_last = of.shared_first + size;
  return 1;
}

Page& page_of(uintptr_t address, bool shared) {
  const uintptr_t number = address / kPage;
  if (shared) {
    std::unique_ptr<Page>& page = block->shared[number];
    if (page == nullptr) page = std::make_unique<Page>();
    return *page;
  }
  auto& [cached, page] = block->recent[number % 256];
  if (cached != number) {
    const std::lock_guard<std::mutex> lock(pages_mutex);
    std::unique_ptr<Page>& found = pages[number];
    if (found == nullptr) found = std::make_unique<Page>();
    cached = number;
    page = found.get();
  }
  return *page;
}

// Whether an earlier access happens before the current thread's next one.
bool ordered(const Access& earlier, const Access& now, bool shared) {
  if (earlier.launch != now.launch) return true;
  if (earlier.block == now.block)
    return earlier.thread == now.thread || earlier.barriers < now.barriers ||
           (earlier.thread / kWarp == now.thread / kWarp && earlier.warp_barriers < now.warp_barriers);
  // An earlier block of this OS thread had the same shared memory.
  if (shared) return true;
  const Thread& own = block->threads[now.thread];
  const Clock& clock = own.has_acquired ? own.acquired : block->known;
  if (earlier.block >= clock.size()) return false;
  const Known& known = clock[earlier.block];
  return earlier.barriers < known.barriers || (earlier.thread == known.thread && earlier.fences <= known.fences);
}

std::string place_of(const void* code) {
  Dl_info info{};
  if (dladdr(code, &info) == 0) return "?";
  char text[64];
  std::snprintf(text, sizeof text, "+0x%zx",
                static_cast<size_t>(static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase)));
  return text;
}

void report(const Access& earlier, const Access& now, bool shared) {
  const auto told = [](const Access& access) {
    return std::string(access.write ? "written" : "read") + " by thread " + std::to_string(access.thread) +
           " of block " + std::to_string(access.block) + " at " + place_of(access.code);
  };
  fail(std::string("a race in ") + (shared ? "shared" : "global") + " memory: " + told(earlier) + ", " + told(now));
}

void touch(Word& word, const Access& now, bool shared) {
  const auto check = [&](const Access& earlier) {
    if ((earlier.bytes & now.bytes) != 0 && !(earlier.strong && now.strong) && !ordered(earlier, now, shared))
      report(earlier, now, shared);
  };
  check(word.write);
  if (now.write) {
    for (const Access& read : word.reads) check(read);
    word.write = now;
    return;
  }
  Access* place = nullptr;
  for (Access& read : word.reads)
    if (read.launch != now.launch || (read.block == now.block && read.thread == now.thread)) place = &read;
  if (place == nullptr) place = &word.reads[block->random() % 3];
  *place = now;
}

// An access of `size` bytes. `strong`: an atomic or volatile.
void touch(const void* at, size_t size, bool write, bool strong, const void* code) {
  BlockRunner* runner = BlockRunner::current();
  if (runner == nullptr || runner->in_stacks(at)) return;
  const auto address = reinterpret_cast<uintptr_t>(at);
  const bool shared = address >= block->shared_first && address < block->shared_last;
  const Fiber& fiber = runner->fiber();
  Access now;
  now.launch = launches.load(std::memory_order_relaxed);
  now.block = block->number;
  now.barriers = runner->barriers();
  now.warp_barriers = fiber.warp->barrier.generation;
  // All accesses to a word are coherent. So what is ordered after a thread that reads an atomic's value is ordered
  // after the atomic, and not only after the fence before it.
  const unsigned fences = block->threads[fiber.number].fences;
  now.fences = strong && fences > 0 ? fences - 1 : fences;
  now.thread = static_cast<short>(fiber.number);
  now.write = write;
  now.strong = strong;
  now.code = code;
  for (uintptr_t first = address, last = address + size; first < last;) {
    const uintptr_t next = std::min(first / 4 * 4 + 4, last);
    now.bytes = static_cast<unsigned char>((1u << (next - first / 4 * 4)) - (1u << first % 4));
    Page& page = page_of(first, shared);
    const std::lock_guard<std::mutex> lock(page.mutex);
    touch(page.words[first % kPage / 4], now, shared);
    first = next;
  }
}

Thread& current_thread() { return block->threads[BlockRunner::current()->fiber().number]; }

void acquire(Thread& thread, const void* word) {
  const Released& at = released[word];
  if (at.launch == launches) join(thread.pending, at.clock);
}

}  // namespace

void begin_launch(unsigned blocks) {
  ++launches;
  blocks_of_launch = blocks;
}

void begin_block(unsigned number, int threads) {
  if (block == nullptr) {
    block = std::make_unique<Block>();
    dl_iterate_phdr(find_storage, block.get());
  }
  block->number = number;
  block->threads.assign(threads, Thread{});
  block->known.clear();
}

void barrier() {
  for (Thread& thread : block->threads) {
    if (!thread.has_acquired) continue;
    join(block->known, thread.acquired);
    thread.has_acquired = false;
    thread.acquired.clear();
  }
}

void fence() {
  Thread& thread = current_thread();
  if (!thread.volatile_reads.empty()) {
    const std::lock_guard<std::mutex> lock(released_mutex);
    for (const void* word : thread.volatile_reads) acquire(thread, word);
    thread.volatile_reads.clear();
  }
  if (!thread.pending.empty()) {
    if (!thread.has_acquired) thread.acquired = block->known;
    join(thread.acquired, thread.pending);
    thread.has_acquired = true;
    thread.pending.clear();
  }
  thread.released = thread.has_acquired ? thread.acquired : block->known;
  if (thread.released.size() < blocks_of_launch) thread.released.resize(blocks_of_launch);
  thread.released[block->number] = {BlockRunner::current()->barriers(), thread.fences,
                                    BlockRunner::current()->fiber().number};
  ++thread.fences;
}

AtomicAccess::AtomicAccess(const void* word, size_t size) {
  released_mutex.lock();
  touch(word, size, true, true, __builtin_return_address(0));
  Thread& thread = current_thread();
  acquire(thread, word);
  Released& at = released[word];
  if (at.launch != launches) at.clock.clear();
  at.launch = launches;
  join(at.clock, thread.released);
}

AtomicAccess::~AtomicAccess() { released_mutex.unlock(); }

namespace {

void read_volatile(const void* at, size_t size, const void* code) {
  if (BlockRunner::current() == nullptr) return;
  touch(at, size, false, true, code);
  std::vector<const void*>& reads = current_thread().volatile_reads;
  if (reads.empty() || reads.back() != at) reads.push_back(at);
  // Other blocks may write the word between this call and the read.
  sched_yield();
}

}  // namespace
}  // namespace emulator::races

// The functions that GCC calls.
extern "C" {
using emulator::races::read_volatile;
using emulator::races::touch;

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* at, size_t size) { touch(at, size, false, false, __builtin_return_address(0)); }
void __tsan_write_range(void* at, size_t size) { touch(at, size, true, false, __builtin_return_address(0)); }

#define ACCESSES(size)                                                                                          \
  void __tsan_read##size(void* at) { touch(at, size, false, false, __builtin_return_address(0)); }              \
  void __tsan_write##size(void* at) { touch(at, size, true, false, __builtin_return_address(0)); }              \
  void __tsan_unaligned_read##size(void* at) { touch(at, size, false, false, __builtin_return_address(0)); }    \
  void __tsan_unaligned_write##size(void* at) { touch(at, size, true, false, __builtin_return_address(0)); }    \
  void __tsan_volatile_read##size(void* at) { read_volatile(at, size, __builtin_return_address(0)); }           \
  void __tsan_unaligned_volatile_read##size(void* at) { read_volatile(at, size, __builtin_return_address(0)); } \
  void __tsan_volatile_write##size(void* at) { touch(at, size, true, true, __builtin_return_address(0)); }      \
  void __tsan_unaligned_volatile_write##size(void* at) { touch(at, size, true, true, __builtin_return_address(0)); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
#undef ACCESSES

// Atomics of the host's code.
#define ATOMICS(bits, Number)                                                                                         \
  Number __tsan_atomic##bits##_load(const volatile Number* at, int) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); } \
  void __tsan_atomic##bits##_store(volatile Number* at, Number value, int) {                                          \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                                    \
  }                                                                                                                   \
  Number __tsan_atomic##bits##_fetch_add(volatile Number* at, Number value, int) {                                    \
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                                                           \
  }
ATOMICS(8, uint8_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
#undef ATOMICS
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
}
