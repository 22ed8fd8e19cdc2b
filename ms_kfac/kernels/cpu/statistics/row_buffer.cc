#include "row_buffer.h"

#include <algorithm>
#include <cstring>

#include "../threads/threads.h"

namespace ms_kfac {

void push_rows(const Rows& rows, int64_t count, float* matrix, bool keeps) {
  const int64_t size = rows.features();
  if (keeps) std::memmove(matrix + count * size, matrix, (size - count) * size * sizeof(float));
  const int64_t tasks = std::min<int64_t>(count, 4 * threads());
  parallel_for(tasks, [&](int64_t task) {
    std::vector<float> scratch;
    const int64_t first = task * count / tasks, last = (task + 1) * count / tasks;
    const float* values = rows.read(first, last - first, scratch);
    std::memcpy(matrix + first * size, values, (last - first) * size * sizeof(float));
  });
}

}  // namespace ms_kfac
