// Damped inverses of the diagonal blocks of both Kronecker factors of every layer that is due.
//
// A layer's arrays: A_sum, A_count, G_sum, G_count, then of A and of G the inverses of the whole blocks (count, split,
// split) and of the last, smaller one. A layer without statistics gets identities.

#include "../damped_inverse.h"
#include "../factor_damping.h"
#include "refresh.h"

namespace {

struct BlockSplitRefreshAttributes : ms_kfac::RefreshAttributes {
  // Largest size of a block, one a layer.
  std::vector<int64_t> split;

  explicit BlockSplitRefreshAttributes(AotExtra& extra)
      : RefreshAttributes(extra), split(extra.GetAttrIntVec("split")) {}
};

// The blocks of one factor; `of` describes the whole of it, its inverse being that of the whole blocks.
void add_blocks(std::vector<ms_kfac::DampedFactor>& factors, const ms_kfac::DampedFactor& of, int split, float* last) {
  const int count = of.size > split ? of.size / split : 0;
  const int64_t diagonal = of.stride + 1;
  for (int64_t block = 0; block < count; ++block) {
    ms_kfac::DampedFactor piece = of;
    piece.factor += block * split * diagonal;
    piece.size = split;
    piece.inverse += block * split * split;
    factors.push_back(piece);
  }
  const int covered = count * split;
  if (covered == of.size) return;
  ms_kfac::DampedFactor piece = of;
  piece.factor += covered * diagonal;
  piece.size = of.size - covered;
  piece.inverse = last;
  factors.push_back(piece);
}

}  // namespace

MS_KFAC_OPERATOR(BlockSplitRefresh) {
  const float lambda = arguments[1].floats()[0];
  std::vector<ms_kfac::DampedFactor> factors;
  ms_kfac::for_due_layers(arguments, attributes, [&](int layer, const ms_kfac::LayerArrays& arrays) {
    const std::string& name = attributes.layers[layer];
    const int split = static_cast<int>(attributes.split[layer]);
    const int size_A = ms_kfac::size_of(arrays[0]), size_G = ms_kfac::size_of(arrays[2]);
    const float* A = arrays[0].floats();
    const float* G = arrays[2].floats();
    const float scale_A = ms_kfac::average_scale(arrays.number(1)), scale_G = ms_kfac::average_scale(arrays.number(3));
    ms_kfac::SplitDamping damping{1.0f, 1.0f};
    if (arrays.number(1) != 0.0f)
      damping = ms_kfac::pi_split(scale_A * ms_kfac::diagonal_sum(A, size_A), size_A,
                                  scale_G * ms_kfac::diagonal_sum(G, size_G), size_G, lambda);
    add_blocks(factors, {name + ": a block of factor A", A, size_A, size_A, scale_A, damping.A, arrays[4].floats()},
               split, arrays[5].floats());
    add_blocks(factors, {name + ": a block of factor G", G, size_G, size_G, scale_G, damping.G, arrays[6].floats()},
               split, arrays[7].floats());
  });
  ms_kfac::invert_damped(std::move(factors));
}
