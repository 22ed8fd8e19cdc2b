#include "inverse_failures.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "../../interface/messages.h"
#include "../../interface/reports.h"

namespace ms_kfac {

InverseFailures::InverseFailures(std::vector<std::string> names)
    : names_(std::move(names)), growth_(names_.size(), 1.0f), outcomes_(names_.size()) {}

void InverseFailures::take(int64_t handle) {
  int worst = kFine;
  std::string name;
  for (size_t i = 0; i < names_.size(); ++i) {
    const int outcome = outcomes_[i];
    outcomes_[i] = kFine;
    if (outcome == kIndefinite) grow(i);
    if (outcome == kHopeless) growth_[i] = 1.0f;
    if (outcome > std::max<int>(worst, kIndefinite)) {
      worst = outcome;
      name = names_[i];
    }
  }
  if (worst == kFine) return;
  const char* what = worst == kNotFinite          ? " holds NaN or infinity"
                     : worst == kDampingNotFinite ? " has a scale or a damping of NaN or infinity"
                                                  : " is not positive definite with damping beyond its trace";
  const std::string text = name + what + ", at an earlier refresh";
  const Reporter report = reporter();
  if (handle == 0 || report == nullptr) throw std::runtime_error(text);
  report(handle, -1, 0, nullptr, text.c_str());
}

void InverseFailures::grow(size_t index) {
  growth_[index] *= 10.0f;
  std::ostringstream text;
  text << names_[index]
       << " is not positive definite with its damping: its inverse stays as it was, and its damping is "
       << growth_[index] << " times as large from the next refresh on";
  warn_once(text.str());
}

}  // namespace ms_kfac
