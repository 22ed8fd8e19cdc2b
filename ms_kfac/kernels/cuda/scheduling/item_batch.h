// One launch for many arrays or matrices. Their descriptions are kernel parameters, split into as many launches as they
// need. Each block looks up the item that it works on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "launch.h"

namespace ms_kfac {

// CUDA 11 limits kernel parameters to 4096 bytes.
constexpr size_t kParameterBytes = 4000;

// Item has a function blocks(). Common holds the parameters that all blocks share.
template <typename Item, typename Common>
struct ItemBatch {
  static constexpr int kItems =
      static_cast<int>((kParameterBytes - sizeof(Common) - 2 * alignof(Item)) / (sizeof(Item) + sizeof(unsigned)));

  Common common;
  // Item i has the blocks from ends[i - 1] up to, but not including, ends[i].
  unsigned ends[kItems];
  Item items[kItems];

  // Returns the index of this block's item. Sets `block` to the block's index within the item.
  __device__ int find(unsigned& block) const {
    block = blockIdx.x;
    // Unused entries of `ends` hold the size of the grid.
    int first = 0, last = kItems - 1;
    while (first < last) {
      const int middle = (first + last) / 2;
      if (ends[middle] > block)
        last = middle;
      else
        first = middle + 1;
    }
    if (first > 0) block -= ends[first - 1];
    return first;
  }
};

// Runs the kernel for all items, in order.
template <typename Item, typename Common>
void launch_items(void (*kernel)(ItemBatch<Item, Common>), const std::vector<Item>& items, const Common& common,
                  int threads, cudaStream_t stream) {
  using Batch = ItemBatch<Item, Common>;
  static_assert(sizeof(Batch) <= kParameterBytes, "more than the parameters of a kernel");
  for (size_t first = 0; first < items.size(); first += Batch::kItems) {
    const size_t count = std::min<size_t>(Batch::kItems, items.size() - first);
    Batch batch{};
    batch.common = common;
    int64_t blocks = 0;
    for (size_t index = 0; index < Batch::kItems; ++index) {
      if (index < count) {
        batch.items[index] = items[first + index];
        blocks += batch.items[index].blocks();
      }
      batch.ends[index] = static_cast<unsigned>(std::min<int64_t>(blocks, UINT32_MAX));
    }
    launch(kernel, blocks, threads, stream, batch);
  }
}

}  // namespace ms_kfac
