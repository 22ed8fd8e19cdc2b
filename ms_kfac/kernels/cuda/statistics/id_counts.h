// The second moment of an embedding's one-hot inputs, which are counts of ids, and the sums of its capture check.
#pragma once

#include <algorithm>

#include "../operands/signed_rows.h"
#include "../tile/tile.h"
#include "check_sums.h"

namespace ms_kfac {

struct IdCounts {
  const int32_t* ids;  // (samples, locations)
  int64_t samples, locations;
  int vocabulary;
  bool reduce;
  // The gradients of the embedded ids, as delivered.
  Rows gradients;
  int64_t vocabulary_blocks, count_blocks;
  // How often each id occurs. In the reduce setting: the sum over samples of the squares. Whole, so that the order of
  // additions does not matter.
  unsigned long long* counts;
  double* partials;  // of the check

  int64_t partial_sums() const { return count_blocks * CheckSums::kSums; }
  __device__ bool known(int id) const { return id >= 0 && id < vocabulary; }
};

// `gradients` are those of a dense layer with all its locations. Workspaces are not set.
inline IdCounts plan_id_counts(const int32_t* ids, int64_t samples, int64_t locations, int vocabulary, bool reduce,
                               const Rows& gradients, int multiprocessors) {
  constexpr int64_t kWarps = kThreads / 32, kAtOnce = kSignedRows * kWarps;
  const int64_t most = 4 * multiprocessors;
  return {ids,
          samples,
          locations,
          vocabulary,
          reduce,
          gradients,
          std::clamp<int64_t>((vocabulary + kThreads - 1) / kThreads, 1, most),
          std::clamp<int64_t>((samples * locations + kAtOnce - 1) / kAtOnce, 1, most),
          nullptr,
          nullptr};
}

__device__ inline void clear_counts(const IdCounts& of, int64_t block) {
  for (int64_t id = block * kThreads + threadIdx.x; id < of.vocabulary; id += of.vocabulary_blocks * kThreads)
    of.counts[id] = 0;
}

// How often an id occurs in a sample, computed by one warp. It compares all pairs of a sample, and stores none.
__device__ inline unsigned long long occurrences(const IdCounts& of, int64_t sample, int id) {
  unsigned count = 0;
  for (int64_t t = threadIdx.x % 32; t < of.locations; t += 32) count += of.ids[sample * of.locations + t] == id;
  return warp_sum(count);
}

// Counts a block's part of the ids if `counts`, and computes its part of the capture check's sums.
__device__ inline void count_ids(const IdCounts& of, bool counts, int64_t block) {
  constexpr int kWarps = kThreads / 32;
  const int64_t positions = of.samples * of.locations;
  const float tap = sign(kTaps, 0);
  CheckSums sums;
  for (int64_t row = (block * kWarps + threadIdx.x / 32) * kSignedRows; row < positions;
       row += of.count_blocks * kWarps * kSignedRows) {
    const int count = static_cast<int>(min(positions - row, static_cast<int64_t>(kSignedRows)));
    float v[kSignedRows];
    signed_rows<kColumns>(of.gradients, row, count, v);
#pragma unroll
    for (int i = 0; i < kSignedRows; ++i) {
      if (i >= count) break;
      const int id = of.ids[row + i];
      const bool known = of.known(id), counted = counts && known;
      // Each of the m occurrences of an id in a sample adds m, so their sum is m^2.
      const unsigned long long added = counted && of.reduce ? occurrences(of, (row + i) / of.locations, id) : 1;
      if (threadIdx.x % 32 != 0) continue;
      sums.add(known ? sign(kRows, static_cast<uint32_t>(id)) : 0.0f, tap * v[i]);
      if (counted) atomicAdd(of.counts + id, added);
    }
  }
  sums.write(of.partials, block);
}

// Adds the counts to the diagonal of A, or replaces it.
__device__ inline void write_counts(const IdCounts& of, Taking taking, float* A, int64_t block) {
  if (taking == Taking::kNothing) return;
  const double locations = of.reduce ? static_cast<double>(max(of.locations, int64_t{1})) : 1.0;
  for (int64_t id = block * kThreads + threadIdx.x; id < of.vocabulary; id += of.vocabulary_blocks * kThreads) {
    const double count = static_cast<double>(__ldcg(of.counts + id)) / (locations * locations);
    A[id] = (taking == Taking::kJoining ? A[id] : 0.0f) + static_cast<float>(count);
  }
}

}  // namespace ms_kfac
