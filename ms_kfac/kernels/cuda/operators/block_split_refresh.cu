// THOR: damped inverses of the diagonal blocks of both Kronecker factors, for every layer that is due. A layer without
// statistics gets identities. Formulas: ms_kfac/ops/refresh/block_split_refresh.py.

#include <algorithm>

#include "../inverse/factored_tikhonov.h"
#include "../inverse/refresh.h"

namespace ms_kfac {
namespace {

using Layout = BlockSplitRefreshLayout;

// One factor of a layer, cut into diagonal blocks.
struct BlockedFactor {
  Matrices sum;
  const float* weight;
  int split, blocks, rest;
  float *inverses, *last;

  // Side 0 is A, side 1 is G.
  BlockedFactor(const LayerArrays& arrays, int side, int64_t split_size)
      : sum(arrays.matrices(Layout::A_sum + side, 1)),
        weight(arrays.floats(Layout::weights, 2) + side),
        split(static_cast<int>(std::min<int64_t>(split_size, sum.size))),
        blocks(sum.size > split ? sum.size / split : 0),
        rest(sum.size - blocks * split),
        inverses(arrays.floats(Layout::A_inverses + 2 * side, std::max<int64_t>(int64_t{blocks} * split * split, 1))),
        last(arrays.floats(Layout::A_last_inverse + 2 * side, std::max<int64_t>(int64_t{rest} * rest, 1))) {}

  int all_blocks() const { return blocks + (rest > 0 ? 1 : 0); }
  int size_of(int block) const { return block < blocks ? split : rest; }
};

class BlockSplitRefreshKernel {
 public:
  BlockSplitRefreshKernel(AotExtra& extra, const Arguments& shapes)
      : attributes_(extra), split_(extra.GetAttrIntVec("split")) {
    std::vector<int> sizes;
    std::vector<std::string> names;
    for (size_t index = 0; index < attributes_.layers.size(); ++index) {
      const std::string& name = attributes_.layers[index];
      if (split_.at(index) < 1)
        throw std::invalid_argument(name + ": split must be positive, got " + std::to_string(split_[index]));
      first_.push_back(static_cast<int>(sizes.size()));
      const LayerArrays arrays(shapes, 2 + static_cast<int>(index) * Layout::kArrays, name);
      for (const int side : {0, 1}) {
        const BlockedFactor factor = side_of(arrays, static_cast<int>(index), side);
        for (int block = 0; block < factor.all_blocks(); ++block) sizes.push_back(factor.size_of(block));
        names.resize(sizes.size(), name + ": a block of factor " + (side == 0 ? "A" : "G"));
      }
    }
    numbers_ = add_workspace(extra, attributes_.layers.size() * 2 * sizeof(FactorNumbers));
    inverses_ = std::make_unique<DampedInverses>(extra, std::move(sizes), std::move(names));
  }

  void run(const Call& call) const {
    const auto collect = [&](int index, const LayerArrays& arrays, std::vector<FactorPair>& pairs,
                             std::vector<DampedFactor>& factors) {
      const BlockedFactor A = side_of(arrays, index, 0), G = side_of(arrays, index, 1);
      FactorNumbers* numbers = call.workspace<FactorNumbers>(numbers_) + 2 * index;
      pairs.push_back({A.sum.data, A.weight, G.sum.data, G.weight, A.sum.size, G.sum.size,
                       attributes_.splits[index] != 0, numbers});
      add_blocks(A, numbers, first_[index], factors);
      add_blocks(G, numbers + 1, first_[index] + A.all_blocks(), factors);
    };
    const auto damp = [&](const std::vector<FactorPair>& pairs, const float* damping) {
      split_damping(pairs, damping, call.stream);
    };
    refresh_pairs<FactorPair>(call, attributes_, Layout::kArrays, *inverses_, collect, damp);
  }

 private:
  BlockedFactor side_of(const LayerArrays& arrays, int index, int side) const {
    return BlockedFactor(arrays, side, split_[index]);
  }

  static void add_blocks(const BlockedFactor& of, const FactorNumbers* numbers, int index,
                         std::vector<DampedFactor>& factors) {
    const int64_t stride = of.sum.size;
    for (int block = 0; block < of.all_blocks(); ++block) {
      float* inverse = block < of.blocks ? of.inverses + int64_t{block} * of.split * of.split : of.last;
      factors.push_back({of.sum.data + int64_t{block} * of.split * (stride + 1), stride, of.size_of(block),
                         &numbers->scale, &numbers->damping, inverse, index + block});
    }
  }

  SplitDampingAttributes attributes_;
  std::vector<int64_t> split_;
  // Per layer: index of its first block among all. Blocks of A come first, then those of G.
  std::vector<int> first_;
  int numbers_;
  std::unique_ptr<DampedInverses> inverses_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(BlockSplitRefresh, ms_kfac::BlockSplitRefreshKernel)
