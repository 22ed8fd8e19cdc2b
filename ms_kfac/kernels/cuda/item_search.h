// How a block finds what it is to do, where one launch works on many things of unequal sizes.
#pragma once

#include <cuda_runtime.h>

namespace ms_kfac {

// Which of the items a block is of: each has the blocks from its first_block to that of the next.
template <typename Item>
__device__ int item_of(const Item* items, int count, unsigned block) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (static_cast<unsigned>(items[middle].first_block) <= block)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// Where the index-th element of a lower triangle is, counted row by row.
struct TriangleIndex {
  int row = 0, column;

  // At most a few dozen rows of tiles.
  __device__ explicit TriangleIndex(int index) {
    while (index > row) index -= ++row;
    column = index;
  }
};

}  // namespace ms_kfac
