// New eigenbases of both Kronecker factors of every layer that is due, with second moments that start anew.
//
// A layer's arrays: A_sum, G_sum, counts (3), Q_A, Q_G, s_sum, fresh, S_A, S_G, damping. All but counts, fresh and
// damping have a leading axis where there are groups. A layer without statistics gets identities and S_G = 0.

#include <algorithm>

#include "../eigendecomposition.h"
#include "../factor_damping.h"
#include "refresh.h"

using EigenbasisRefreshAttributes = ms_kfac::RefreshAttributes;

MS_KFAC_OPERATOR(EigenbasisRefresh) {
  const float lambda = arguments[1].floats()[0];
  std::vector<ms_kfac::EigenFactor> factors;
  std::vector<ms_kfac::Array> cleared;
  ms_kfac::for_due_layers(arguments, attributes, [&](int layer, const ms_kfac::LayerArrays& arrays) {
    const std::string& name = attributes.layers[layer];
    float* counts = arrays[2].floats();
    const bool unseen = counts[0] == 0.0f;
    const float shift = unseen ? 1.0f : 0.0f;
    const int size_A = ms_kfac::size_of(arrays[0]), size_G = ms_kfac::size_of(arrays[1]);
    for (int64_t group = 0; group < ms_kfac::batch_of(arrays[0]); ++group) {
      const int64_t from_A = group * size_A * size_A, from_G = group * size_G * size_G;
      factors.push_back({name + ": factor A", arrays[0].floats() + from_A, size_A, ms_kfac::average_scale(counts[0]),
                         shift, arrays[7].floats() + group * size_A, arrays[3].floats() + from_A});
      factors.push_back({name + ": factor G", arrays[1].floats() + from_G, size_G, ms_kfac::average_scale(counts[1]),
                         shift, arrays[8].floats() + group * size_G, arrays[4].floats() + from_G});
    }
    if (unseen) cleared.push_back(arrays[8]);
    cleared.push_back(arrays[5]);
    counts[2] = 0.0f;
    arrays[6].floats()[0] = 1.0f;
    arrays[9].floats()[0] = unseen ? 1.0f : lambda;
  });
  ms_kfac::decompose(std::move(factors));
  for (const ms_kfac::Array& array : cleared) std::fill_n(array.floats(), array.size(), 0.0f);
}
