// EKFAC: new eigenbases of both Kronecker factors for every layer that is due. The second moments restart at zero. A
// layer without statistics gets identities and S_G = 0.

#include <algorithm>

#include "../../interface/factored_tikhonov.h"
#include "../linalg/eigendecomposition.h"
#include "refresh.h"

using Layout = ms_kfac::EigenbasisRefreshLayout;
using EigenbasisRefreshAttributes = ms_kfac::RefreshAttributes;

namespace {

// Arrays that are written after the decompositions succeed.
struct Bookkeeping {
  bool unseen;
  float *moments, *S_G, *count, *fresh, *damping;
  int64_t moments_size, S_G_size;
};

}  // namespace

MS_KFAC_REFRESH_OPERATOR(EigenbasisRefresh) {
  const float lambda = ms_kfac::damping_of(arguments);
  std::vector<ms_kfac::EigenFactor> factors;
  std::vector<Bookkeeping> layers;
  ms_kfac::for_due_layers(
      arguments, attributes, due, Layout::kArrays, [&](int layer, const ms_kfac::LayerArrays& arrays) {
        const std::string& name = attributes.layers[layer];
        const ms_kfac::Matrices A = arrays.matrices(Layout::A_sum), G = arrays.matrices(Layout::G_sum, A.groups);
        const ms_kfac::Matrices Q_A = arrays.like(A, Layout::Q_A), Q_G = arrays.like(G, Layout::Q_G);
        const int64_t moments_size = A.groups * A.size * G.size, S_G_size = A.groups * G.size;
        float* S_A = arrays.floats(Layout::S_A, A.groups * A.size);
        float* S_G = arrays.floats(Layout::S_G, S_G_size);
        float* counts = arrays.floats(Layout::weights, 3);
        const bool unseen = counts[0] == 0.0f;
        const float shift = unseen ? 1.0f : 0.0f;
        for (int64_t group = 0; group < A.groups; ++group) {
          factors.push_back({name + ": factor A", A.of(group), A.size, ms_kfac::average_scale(counts[0]), shift,
                             S_A + group * A.size, Q_A.of(group)});
          factors.push_back({name + ": factor G", G.of(group), G.size, ms_kfac::average_scale(counts[1]), shift,
                             S_G + group * G.size, Q_G.of(group)});
        }
        layers.push_back({unseen, arrays.floats(Layout::s_sum, moments_size), S_G, counts + 2,
                          arrays.floats(Layout::fresh, 1), arrays.floats(Layout::damping, 1), moments_size, S_G_size});
      });
  ms_kfac::decompose(std::move(factors));
  for (const Bookkeeping& layer : layers) {
    if (layer.unseen) std::fill_n(layer.S_G, layer.S_G_size, 0.0f);
    std::fill_n(layer.moments, layer.moments_size, 0.0f);
    *layer.count = 0.0f;
    *layer.fresh = 1.0f;
    *layer.damping = layer.unseen ? 1.0f : lambda;
  }
}
