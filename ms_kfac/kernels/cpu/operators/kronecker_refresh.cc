// Damped inverses of both Kronecker factors for every layer that is due. A layer without statistics gets identities.

#include "../../interface/factored_tikhonov.h"
#include "../linalg/damped_inverse.h"
#include "../linalg/diagonal_sum.h"
#include "refresh.h"

using Layout = ms_kfac::KroneckerRefreshLayout;
using KroneckerRefreshAttributes = ms_kfac::SplitDampingAttributes;

MS_KFAC_REFRESH_OPERATOR(KroneckerRefresh) {
  const float lambda = ms_kfac::damping_of(arguments);
  std::vector<ms_kfac::DampedFactor> factors;
  ms_kfac::for_due_layers(
      arguments, attributes, due, Layout::kArrays, [&](int layer, const ms_kfac::LayerArrays& arrays) {
        const std::string& name = attributes.layers[layer];
        const ms_kfac::Matrices sums_A = arrays.matrices(Layout::A_sum),
                                sums_G = arrays.matrices(Layout::G_sum, sums_A.groups);
        const ms_kfac::Matrices inverses_A = arrays.like(sums_A, Layout::A_inverse),
                                inverses_G = arrays.like(sums_G, Layout::G_inverse);
        const int size_A = sums_A.size, size_G = sums_G.size;
        const float* weights = arrays.floats(Layout::weights, 2);
        const float scale_A = ms_kfac::average_scale(weights[0]), scale_G = ms_kfac::average_scale(weights[1]);
        for (int64_t group = 0; group < sums_A.groups; ++group) {
          const float* A = sums_A.of(group);
          const float* G = sums_G.of(group);
          ms_kfac::SplitDamping damping{1.0f, 1.0f};
          if (weights[0] != 0.0f)
            damping = ms_kfac::pi_split(scale_A * ms_kfac::diagonal_sum(A, size_A), size_A,
                                        scale_G * ms_kfac::diagonal_sum(G, size_G), size_G, lambda,
                                        attributes.splits[layer] != 0);
          factors.push_back({name + ": factor A", A, size_A, size_A, scale_A, damping.A, inverses_A.of(group)});
          factors.push_back({name + ": factor G", G, size_G, size_G, scale_G, damping.G, inverses_G.of(group)});
        }
      });
  ms_kfac::invert_damped(std::move(factors));
}
