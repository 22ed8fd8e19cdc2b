#include "judged_commits.h"

#include <algorithm>
#include <atomic>

namespace ms_kfac {

JudgedCommits::JudgedCommits(int64_t handle, size_t layers)
    : handle_(handle),
      layers_(layers),
      numbers_(handle != 0 ? kKept * layers * kJudgedNumbers : 0),
      written_(handle != 0 ? kKept : 0),
      answers_(layers, 1),
      periods_(layers, 0),
      calls_(layers, 0),
      skipped_(layers, 0) {}

JudgedPlace JudgedCommits::begin() {
  ++commit_;
  const Judge function = judge();
  if (handle_ == 0 || function == nullptr) return {nullptr, nullptr, 0};
  // The slot of a commit is overwritten kKept commits later, at the earliest by the commit that begins here.
  const unsigned first = std::max(judged_ + 1, commit_ > kKept ? commit_ - kKept : 1);
  for (unsigned commit = first; commit < commit_; ++commit)
    // A commit that was not due, or that the device has not finished, has not written its word.
    if (written_[commit % kKept] == commit) ask(function, commit);
  const unsigned slot = commit_ % kKept;
  return {numbers_.device() + slot * layers_ * kJudgedNumbers, written_.device() + slot, commit_};
}

void JudgedCommits::ask(Judge function, unsigned commit) {
  std::atomic_thread_fence(std::memory_order_acquire);
  std::vector<float> numbers(layers_ * kJudgedNumbers);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = numbers_[commit % kKept * numbers.size() + i];
  std::vector<int64_t> answers(layers_ * kAnswers);
  function(handle_, static_cast<int64_t>(layers_), numbers.data(), answers.data());
  for (size_t layer = 0; layer < layers_; ++layer) {
    // The judge's answer is unused for a layer without a pass.
    if (!(numbers[layer * kJudgedNumbers] > 0.0f)) continue;
    answers_[layer] = static_cast<int>(answers[layer * kAnswers]);
    periods_[layer] = answers[layer * kAnswers + 1];
    calls_[layer] = answers[layer * kAnswers + 2];
    skipped_[layer] = answers[layer * kAnswers + 3];
  }
  judged_ = commit;
}

}  // namespace ms_kfac
