#include "lag_plans.h"

#include <mutex>

namespace ms_kfac {
namespace {

// Number of sums over which the cost of a plan is spread. All groups of a layer and all its steps use the same plan.
constexpr double kSums = 4;
// In nanoseconds. It also limits memory: up to 9 x 9 taps, or 11 x 11 with padding, and 3 MB.
constexpr double kMostPlanning = 3e6;
// Larger than the number of distinct shapes of stride-1 convolutions in a network.
constexpr size_t kKept = 64;

struct Kept {
  ImageShape shape;
  Window window;
  std::shared_ptr<const LagMoments> moments;
};

// Locked during planning, so that concurrent groups wait for one plan.
std::mutex mutex;
// Most recently used first.
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
