// The second moment of an embedding's one-hot inputs: counts of ids.
#pragma once

#include <cstdint>

namespace ms_kfac {

// The ids of a batch, (samples, locations), of a table with `vocabulary` rows. Ids outside of the table are not
// counted.
struct Ids {
  const int32_t* values;
  int64_t samples, locations, vocabulary;

  bool known(int64_t id) const { return id >= 0 && id < vocabulary; }
};

// Adds the diagonal of the summed second moment of one-hot inputs: how often each id occurs. In the reduce setting:
// the sum over samples of (m / locations)^2 if an id occurs m times in a sample.
void add_id_counts(const Ids& ids, bool reduce, float* counts);

}  // namespace ms_kfac
