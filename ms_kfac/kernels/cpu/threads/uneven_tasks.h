// Tasks of very different costs.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace ms_kfac {

// Calls large(i) for each task that costs more than the average per thread of those that are left, one after the other:
// alone, it would keep the other threads waiting at the end. large(i) uses all threads itself. Then calls small(i) for
// the others in parallel, the largest first.
void run_uneven(const std::vector<double>& costs, const std::function<void(int64_t)>& large,
                const std::function<void(int64_t)>& small);

}  // namespace ms_kfac
