// Launches: blocks in random order on a few OS threads.
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "fibers.h"
#include "races.h"

dim3 blockDim, gridDim;

namespace emulator {
namespace {

// For tests.
std::atomic<unsigned> synchronizations{0};
unsigned largest = 0;

unsigned setting(const char* name, unsigned otherwise) {
  const char* set = std::getenv(name);
  return set != nullptr ? static_cast<unsigned>(std::strtoul(set, nullptr, 10)) : otherwise;
}

// One launch, shared by the OS threads of its blocks.
struct Launch {
  const std::function<void()>& body;
  int threads;
  unsigned seed;
  std::vector<unsigned> order;  // in which blocks begin
  std::atomic<size_t> begun{0};
  // Counts what can end a wait: atomics and finished blocks.
  std::atomic<unsigned long> changes{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  int active;     // OS threads that still run blocks
  int stuck = 0;  // those of them whose polls found nothing new
  unsigned long stuck_at = 0;
  std::string failure;

  Launch(const std::function<void()>& of_body, int of_threads, unsigned blocks, unsigned of_seed)
      : body(of_body), threads(of_threads), seed(of_seed), order(blocks) {
    std::iota(order.begin(), order.end(), 0u);
    std::minstd_rand random(seed + 1);
    std::shuffle(order.begin(), order.end(), random);
  }

  void fail(const std::string& what) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!failed) failure = what;
    failed = true;
  }
};

// An OS thread that runs resident blocks, one after the other.
class Resident {
 public:
  static __thread Resident* current;

  Resident() { current = this; }

  void run(Launch& launch) {
    launch_ = &launch;
    seen_ = ~0ul;
    counted_ = false;
    const auto goes_on = [&] { return !launch.failed; };
    for (size_t next; !launch.failed && (next = launch.begun++) < launch.order.size();) {
      const unsigned block = launch.order[next];
      random_.seed(launch.seed * 2654435761u + block + 1);
      blockIdx = {block, 0, 0};
      races::begin_block(block, launch.threads);
      if (launch.order.size() > 1) delay(4);
      const End end = runner_.run(launch.threads, launch.body, random_, goes_on, [&] { return wait(); });
      if (end == End::kStuck) launch.fail("threads of a block wait for one another");
      ++launch.changes;
    }
    const std::lock_guard<std::mutex> lock(launch.mutex);
    --launch.active;
    ++launch.changes;
  }

  // Lets other blocks run first: often for a moment, once in `rarity` times for longer.
  void delay(unsigned rarity) {
    const unsigned drawn = static_cast<unsigned>(random_());
    if (drawn % 2 == 0) sched_yield();
    if (drawn / 2 % rarity == 0) usleep(drawn / 64 % (drawn / 16 % 4 == 0 ? 1024 : 64));
  }

  void changed() { ++launch_->changes; }
  void fail(const std::string& what) { launch_->fail(what); }

 private:
  // If the polls of all resident blocks have found nothing since the last change, they never will.
  bool wait() {
    Launch& launch = *launch_;
    {
      const std::lock_guard<std::mutex> lock(launch.mutex);
      const unsigned long now = launch.changes;
      if (launch.stuck_at != now) {
        launch.stuck_at = now;
        launch.stuck = 0;
      }
      // The poll before this call may be older than the last change. The one before the second call is not.
      if (seen_ != now) {
        seen_ = now;
        counted_ = false;
      } else if (!counted_ || counted_at_ != now) {
        counted_ = true;
        counted_at_ = now;
        ++launch.stuck;
      }
      if (launch.stuck == launch.active && launch.changes == now && !launch.failed) {
        launch.failure = "all resident blocks wait, and none of them can end the wait";
        launch.failed = true;
      }
    }
    sched_yield();
    return !launch.failed;
  }

  BlockRunner runner_;
  Launch* launch_ = nullptr;
  std::minstd_rand random_;
  unsigned long seen_ = ~0ul, counted_at_ = 0;
  bool counted_ = false;
};

__thread Resident* Resident::current = nullptr;

// The OS threads. They are never joined: at process exit they wait for a launch.
class Residents {
 public:
  static Residents& all() {
    static auto* residents = new Residents;
    return *residents;
  }

  void run(Launch& launch, int count) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (; threads_ < count; ++threads_) std::thread([this, number = threads_] { serve(number); }).detach();
    launch.active = count;
    launch_ = &launch;
    wanted_ = running_ = count;
    ++number_;
    begin_.notify_all();
    end_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  [[noreturn]] void serve(int number) {
    Resident resident;
    unsigned done = 0;
    for (;;) {
      Launch* launch;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        begin_.wait(lock, [&] { return number_ != done && number < wanted_; });
        done = number_;
        launch = launch_;
      }
      resident.run(*launch);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) {
        wanted_ = 0;
        end_.notify_all();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable begin_, end_;
  Launch* launch_ = nullptr;
  int threads_ = 0, wanted_ = 0, running_ = 0;
  unsigned number_ = 0;
};

}  // namespace

void wait_for_block() { BlockRunner::current()->wait_for_block(); }
void with_warp(void* own, void (*work)(void** of_lane)) { BlockRunner::current()->with_warp(own, work); }
void pause() { BlockRunner::current()->pause(); }

void fence() {
  // First, since it acquires what volatile reads have read, and not what is written later.
  races::fence();
  Resident::current->delay(8);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

template <typename Number>
static Number add_to(Number* to, Number value) {
  Resident::current->delay(8);
  Number before;
  {
    const races::AtomicAccess access(to, sizeof(Number));
    before = __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
  }
  Resident::current->changed();
  return before;
}

unsigned add(unsigned* to, unsigned value) { return add_to(to, value); }
unsigned long long add(unsigned long long* to, unsigned long long value) { return add_to(to, value); }

unsigned raise(unsigned* to, unsigned value) {
  Resident::current->delay(8);
  unsigned before;
  {
    const races::AtomicAccess access(to, sizeof *to);
    before = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (before < value &&
           !__atomic_compare_exchange_n(to, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
  }
  Resident::current->changed();
  return before;
}

void count_synchronization() { ++synchronizations; }

void fail(const std::string& what) { Resident::current->fail(what); }

void run(dim3 grid, dim3 block, const std::function<void()>& body) {
  const int threads = static_cast<int>(block.x * block.y * block.z);
  if (threads < 1 || threads > 1024 || grid.x < 1 || grid.y != 1 || grid.z != 1)
    throw std::runtime_error("emulator: a launch that a GPU would refuse, or a grid of several dimensions");
  // One launch at a time, as on one stream.
  static auto* launches = new std::mutex;
  static unsigned launched = 0;
  const std::lock_guard<std::mutex> lock(*launches);
  largest = std::max(largest, grid.x);
  gridDim = grid;
  blockDim = block;
  Launch launch(body, threads, grid.x, setting("EMULATOR_SEED", 0) * 8191 + launched++);
  races::begin_launch(grid.x);
  Residents::all().run(launch, static_cast<int>(std::min(std::max(setting("EMULATOR_BLOCKS", 4), 1u), grid.x)));
  if (launch.failed) throw std::runtime_error("emulator: " + launch.failure);
}

}  // namespace emulator

// The number of waits for the device.
extern "C" unsigned emulator_synchronizations() { return emulator::synchronizations; }

// The most blocks of a launch since the last call of this function.
extern "C" unsigned emulator_largest_launch() { return std::exchange(emulator::largest, 0u); }
