// What the judge is told of commits, and what it answers: one commit late, because no host waits for a device.
//
// The device writes a commit's numbers into mapped memory. The operator's next call finds them there and asks the
// judge; its answers go with that call's commit, as parameters of its launches. A refusal therefore comes too late for
// the batch that it is about, which is committed if it is finite, and refuses the next one; answer -1 empties the
// averages in the next commit. So it stays until a later commit is judged. Periods are late alike.
#pragma once

#include <cstdint>
#include <vector>

#include "../interface/judge.h"
#include "mapped_memory.h"

namespace ms_kfac {

// Where the device writes a commit's numbers; null without a judge.
struct JudgedPlace {
  float* numbers;     // (layers, kJudgedNumbers)
  unsigned* written;  // becomes `commit` when all numbers are there
  unsigned commit;
};

class JudgedCommits {
 public:
  // A handle of 0 stands for no judge.
  JudgedCommits(int64_t handle, size_t layers);

  // Begins a commit: asks the judge about earlier ones whose numbers have come since, in their order.
  JudgedPlace begin();

  // The answers for a layer; period 0: none yet.
  int answer(size_t layer) const { return answers_[layer]; }
  int64_t period(size_t layer) const { return periods_[layer]; }

 private:
  // Commits whose numbers are kept. One that the host is more commits ahead of is not judged.
  static constexpr unsigned kKept = 8;

  void ask(Judge function, unsigned commit);

  int64_t handle_;
  size_t layers_;
  MappedArray<float> numbers_;     // (kKept, layers, kJudgedNumbers)
  MappedArray<unsigned> written_;  // (kKept,)
  unsigned commit_ = 0, judged_ = 0;
  std::vector<int> answers_;
  std::vector<int64_t> periods_;
};

}  // namespace ms_kfac
