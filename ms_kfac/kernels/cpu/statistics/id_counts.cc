#include "id_counts.h"

#include <algorithm>
#include <vector>

namespace ms_kfac {

void add_id_counts(const Ids& ids, bool reduce, float* counts) {
  // A float would stop counting at 2^24.
  std::vector<int64_t> occurrences(ids.vocabulary);
  const int64_t runs = reduce ? ids.samples : 1, length = ids.samples * ids.locations / std::max<int64_t>(runs, 1);
  for (int64_t run = 0; run < runs; ++run) {
    const int32_t* values = ids.values + run * length;
    for (int64_t i = 0; i < length; ++i)
      if (ids.known(values[i])) ++occurrences[values[i]];
    for (int64_t i = 0; i < length; ++i) {
      if (!ids.known(values[i])) continue;
      int64_t& found = occurrences[values[i]];
      const double count = static_cast<double>(found), mean = count / static_cast<double>(length);
      counts[values[i]] += static_cast<float>(reduce ? mean * mean : count);
      // So that its other occurrences add nothing, and the next sample begins with zeros.
      found = 0;
    }
  }
}

}  // namespace ms_kfac
