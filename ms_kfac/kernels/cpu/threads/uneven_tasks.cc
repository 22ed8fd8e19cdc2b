#include "uneven_tasks.h"

#include <algorithm>
#include <numeric>

#include "threads.h"

namespace ms_kfac {

void run_uneven(const std::vector<double>& costs, const std::function<void(int64_t)>& large,
                const std::function<void(int64_t)>& small) {
  std::vector<int64_t> order(costs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return costs[a] > costs[b]; });
  double rest = std::accumulate(costs.begin(), costs.end(), 0.0);
  size_t shared = 0;
  for (; threads() > 1 && shared < order.size() && costs[order[shared]] * threads() > rest; ++shared) {
    large(order[shared]);
    rest -= costs[order[shared]];
  }
  parallel_for(static_cast<int64_t>(order.size() - shared), [&](int64_t task) { small(order[shared + task]); });
}

}  // namespace ms_kfac
