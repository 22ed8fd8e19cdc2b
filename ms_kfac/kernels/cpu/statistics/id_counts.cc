#include "id_counts.h"

#include <vector>

namespace ms_kfac {

void add_id_counts(const Ids& ids, bool reduce, float* counts) {
  if (!reduce) {
    for (int64_t i = 0; i < ids.samples * ids.locations; ++i)
      if (ids.known(ids.values[i])) counts[ids.values[i]] += 1.0f;
    return;
  }
  const double locations = static_cast<double>(ids.locations);
  std::vector<int64_t> of_sample(ids.vocabulary);
  for (int64_t n = 0; n < ids.samples; ++n) {
    const int32_t* sample = ids.values + n * ids.locations;
    for (int64_t t = 0; t < ids.locations; ++t)
      if (ids.known(sample[t])) ++of_sample[sample[t]];
    for (int64_t t = 0; t < ids.locations; ++t) {
      if (!ids.known(sample[t])) continue;
      const double mean = static_cast<double>(of_sample[sample[t]]) / locations;
      counts[sample[t]] += static_cast<float>(mean * mean);
      // So that its other occurrences add nothing, and the next sample begins with zeros.
      of_sample[sample[t]] = 0;
    }
  }
}

}  // namespace ms_kfac
