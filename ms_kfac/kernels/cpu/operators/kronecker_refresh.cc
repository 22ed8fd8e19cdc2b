// Damped inverses of both Kronecker factors of every layer that is due.
//
// A layer's arrays: A_sum, A_count, G_sum, G_count, A_inverse, G_inverse, the sums and inverses with a leading axis
// where there are groups. A layer without statistics gets identities.

#include "../damped_inverse.h"
#include "../factor_damping.h"
#include "refresh.h"

using KroneckerRefreshAttributes = ms_kfac::RefreshAttributes;

MS_KFAC_OPERATOR(KroneckerRefresh) {
  const float lambda = arguments[1].floats()[0];
  std::vector<ms_kfac::DampedFactor> factors;
  ms_kfac::for_due_layers(arguments, attributes, [&](int layer, const ms_kfac::LayerArrays& arrays) {
    const std::string& name = attributes.layers[layer];
    const int size_A = ms_kfac::size_of(arrays[0]), size_G = ms_kfac::size_of(arrays[2]);
    const float count_A = arrays.number(1);
    const float scale_A = ms_kfac::average_scale(count_A), scale_G = ms_kfac::average_scale(arrays.number(3));
    for (int64_t group = 0; group < ms_kfac::batch_of(arrays[0]); ++group) {
      const int64_t from_A = group * size_A * size_A, from_G = group * size_G * size_G;
      const float* A = arrays[0].floats() + from_A;
      const float* G = arrays[2].floats() + from_G;
      ms_kfac::SplitDamping damping{1.0f, 1.0f};
      if (count_A != 0.0f)
        damping = ms_kfac::pi_split(scale_A * ms_kfac::diagonal_sum(A, size_A), size_A,
                                    scale_G * ms_kfac::diagonal_sum(G, size_G), size_G, lambda);
      factors.push_back({name + ": factor A", A, size_A, size_A, scale_A, damping.A, arrays[4].floats() + from_A});
      factors.push_back({name + ": factor G", G, size_G, size_G, scale_G, damping.G, arrays[5].floats() + from_G});
    }
  });
  ms_kfac::invert_damped(std::move(factors));
}
