// THOR: damped inverses of the diagonal blocks of both Kronecker factors, for every layer that is due. A layer without
// statistics gets identities.

#include <algorithm>

#include "../../interface/factored_tikhonov.h"
#include "../linalg/damped_inverse.h"
#include "../linalg/diagonal_sum.h"
#include "refresh.h"

namespace {

using Layout = ms_kfac::BlockSplitRefreshLayout;

struct BlockSplitRefreshAttributes : ms_kfac::SplitDampingAttributes {
  // Largest size of a block, one per layer.
  std::vector<int64_t> split;

  explicit BlockSplitRefreshAttributes(AotExtra& extra)
      : SplitDampingAttributes(extra), split(extra.GetAttrIntVec("split")) {}
};

// Adds the blocks of one factor. `of` describes the whole factor. The inverses of the full blocks are array `index`,
// that of the last block is array index + 1.
void add_blocks(std::vector<ms_kfac::DampedFactor>& factors, const ms_kfac::DampedFactor& of, int split,
                const ms_kfac::LayerArrays& arrays, int index) {
  const int64_t count = of.size > split ? of.size / split : 0;
  const int covered = static_cast<int>(count * split), rest = of.size - covered;
  float* whole = arrays.floats(index, std::max<int64_t>(count * split * split, 1));
  float* last = arrays.floats(index + 1, std::max<int64_t>(int64_t{rest} * rest, 1));
  const int64_t diagonal = of.stride + 1;
  for (int64_t block = 0; block < count; ++block) {
    ms_kfac::DampedFactor piece = of;
    piece.factor += block * split * diagonal;
    piece.size = split;
    piece.inverse = whole + block * split * split;
    factors.push_back(piece);
  }
  if (rest == 0) return;
  ms_kfac::DampedFactor piece = of;
  piece.factor += covered * diagonal;
  piece.size = rest;
  piece.inverse = last;
  factors.push_back(piece);
}

}  // namespace

MS_KFAC_REFRESH_OPERATOR(BlockSplitRefresh) {
  const float lambda = ms_kfac::damping_of(arguments);
  std::vector<ms_kfac::DampedFactor> factors;
  ms_kfac::for_due_layers(
      arguments, attributes, due, Layout::kArrays, [&](int layer, const ms_kfac::LayerArrays& arrays) {
        const std::string& name = attributes.layers[layer];
        const int split = static_cast<int>(attributes.split.at(layer));
        if (split < 1) throw std::invalid_argument(name + ": split must be positive, got " + std::to_string(split));
        const ms_kfac::Matrices sum_A = arrays.matrices(Layout::A_sum, 1), sum_G = arrays.matrices(Layout::G_sum, 1);
        const int size_A = sum_A.size, size_G = sum_G.size;
        const float* A = sum_A.data;
        const float* G = sum_G.data;
        const float* weights = arrays.floats(Layout::weights, 2);
        const float scale_A = ms_kfac::average_scale(weights[0]), scale_G = ms_kfac::average_scale(weights[1]);
        ms_kfac::SplitDamping damping{1.0f, 1.0f};
        if (weights[0] != 0.0f)
          damping = ms_kfac::pi_split(scale_A * ms_kfac::diagonal_sum(A, size_A), size_A,
                                      scale_G * ms_kfac::diagonal_sum(G, size_G), size_G, lambda,
                                      attributes.splits[layer] != 0);
        add_blocks(factors, {name + ": a block of factor A", A, size_A, size_A, scale_A, damping.A, nullptr}, split,
                   arrays, Layout::A_inverses);
        add_blocks(factors, {name + ": a block of factor G", G, size_G, size_G, scale_G, damping.G, nullptr}, split,
                   arrays, Layout::G_inverses);
      });
  ms_kfac::invert_damped(std::move(factors));
}
