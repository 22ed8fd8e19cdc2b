#include "lag_plans.h"

#include <mutex>

namespace ms_kfac {
namespace {

// A plan has paid for itself after so many sums at the latest: all groups of a layer and all its steps share it.
constexpr double kSums = 4;
// In nanoseconds, and so of memory too: up to 9 x 9 taps, or with padding 11 x 11, and 3 MB.
constexpr double kMostPlanning = 3e6;
// More than a network has shapes of convolutions with stride 1.
constexpr size_t kKept = 64;

struct Kept {
  ImageShape shape;
  Window window;
  std::shared_ptr<const LagMoments> moments;
};

// Locked while planning, so that the groups that ask at the same time wait for one plan.
std::mutex mutex;
// The last one used first.
std::vector<Kept> kept;

std::shared_ptr<const LagMoments> find_or_plan(const ImageShape& shape, const Window& window) {
  const std::lock_guard<std::mutex> lock(mutex);
  auto found = std::find_if(kept.begin(), kept.end(),
                            [&](const Kept& plan) { return plan.shape == shape && plan.window == window; });
  if (found == kept.end()) {
    auto moments = std::make_shared<const LagMoments>(shape, window);
    if (kept.size() == kKept) kept.pop_back();
    kept.push_back({shape, window, std::move(moments)});
    found = kept.end() - 1;
  }
  std::rotate(kept.begin(), found, found + 1);
  return kept.front().moments;
}

}  // namespace

std::shared_ptr<const LagMoments> lag_plan(const ImageShape& shape, const Window& window, double unfolded) {
  const double planning = LagMoments::planning_cost(shape, window);
  if (planning > kMostPlanning || planning / kSums > unfolded) return nullptr;
  std::shared_ptr<const LagMoments> moments = find_or_plan(shape, window);
  return planning / kSums + moments->cost() < unfolded ? moments : nullptr;
}

}  // namespace ms_kfac
