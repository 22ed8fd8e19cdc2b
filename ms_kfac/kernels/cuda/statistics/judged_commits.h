// The judge's input and answers, one commit late, because the host does not wait for the device.
//
// The device writes a commit's numbers into mapped memory. The operator's next call finds them there and asks the
// judge. The answers take effect in that call's commit, as kernel parameters. So a refusal comes too late for the batch
// that it is about. That batch is committed if it is finite, and the next batch is refused. Answer -1 empties the
// averages in the next commit. An answer stays in effect until a later commit is judged. Periods, calls and skipped
// passes are late by one commit too.
#pragma once

#include <cstdint>
#include <vector>

#include "../../interface/judge.h"
#include "../scheduling/mapped_memory.h"

namespace ms_kfac {

// Where the device writes a commit's numbers. Null without a judge.
struct JudgedPlace {
  float* numbers;     // (layers, kJudgedNumbers)
  unsigned* written;  // set to `commit` once all numbers are written
  unsigned commit;
};

class JudgedCommits {
 public:
  // A handle of 0 means no judge.
  JudgedCommits(int64_t handle, size_t layers);

  // Begins a commit. First asks the judge, in order, about earlier commits whose numbers have arrived.
  JudgedPlace begin();

  // The judge's latest answers for a layer. Period and calls are 0 before the first answer.
  int answer(size_t layer) const { return answers_[layer]; }
  int64_t period(size_t layer) const { return periods_[layer]; }
  int64_t calls(size_t layer) const { return calls_[layer]; }
  int64_t skipped(size_t layer) const { return skipped_[layer]; }

 private:
  // Commits whose numbers are kept. A commit is not judged if the host is further ahead than this.
  static constexpr unsigned kKept = 8;

  void ask(Judge function, unsigned commit);

  int64_t handle_;
  size_t layers_;
  MappedArray<float> numbers_;     // (kKept, layers, kJudgedNumbers)
  MappedArray<unsigned> written_;  // (kKept,)
  unsigned commit_ = 0, judged_ = 0;
  std::vector<int> answers_;
  std::vector<int64_t> periods_, calls_, skipped_;
};

}  // namespace ms_kfac
