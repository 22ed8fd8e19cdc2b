// Damped inverses of both Kronecker factors, for every layer that is due. A layer without statistics gets identities.
// Formulas: ms_kfac/ops/refresh/kronecker_refresh.py.

#include "../inverse/factored_tikhonov.h"
#include "../inverse/refresh.h"

namespace ms_kfac {
namespace {

using Layout = KroneckerRefreshLayout;

struct Layer {
  Matrices A, G, A_inverses, G_inverses;
  const float* weights;

  explicit Layer(const LayerArrays& arrays)
      : A(arrays.matrices(Layout::A_sum)),
        G(arrays.matrices(Layout::G_sum, A.groups)),
        A_inverses(arrays.like(A, Layout::A_inverse)),
        G_inverses(arrays.like(G, Layout::G_inverse)),
        weights(arrays.floats(Layout::weights, 2)) {}
};

class KroneckerRefreshKernel {
 public:
  KroneckerRefreshKernel(AotExtra& extra, const Arguments& shapes) : attributes_(extra) {
    std::vector<int> sizes;
    std::vector<std::string> names;
    for (size_t index = 0; index < attributes_.layers.size(); ++index) {
      const std::string& name = attributes_.layers[index];
      const Layer layer(LayerArrays(shapes, 2 + static_cast<int>(index) * Layout::kArrays, name));
      first_.push_back(static_cast<int>(sizes.size()));
      for (int64_t group = 0; group < layer.A.groups; ++group) {
        sizes.insert(sizes.end(), {layer.A.size, layer.G.size});
        names.insert(names.end(), {name + ": factor A", name + ": factor G"});
      }
    }
    numbers_ = add_workspace(extra, sizes.size() * sizeof(FactorNumbers));
    inverses_ = std::make_unique<DampedInverses>(extra, std::move(sizes), std::move(names));
  }

  void run(const Call& call) const {
    const auto collect = [&](int index, const LayerArrays& arrays, std::vector<FactorPair>& pairs,
                             std::vector<DampedFactor>& factors) {
      const Layer layer(arrays);
      for (int64_t group = 0; group < layer.A.groups; ++group) {
        const int factor = first_[index] + 2 * static_cast<int>(group);
        FactorNumbers* numbers = call.workspace<FactorNumbers>(numbers_) + factor;
        const float *A = layer.A.of(group), *G = layer.G.of(group);
        pairs.push_back({A, layer.weights, G, layer.weights + 1, layer.A.size, layer.G.size,
                         attributes_.splits[index] != 0, numbers});
        factors.push_back({A, layer.A.size, layer.A.size, &numbers[0].scale, &numbers[0].damping,
                           layer.A_inverses.of(group), factor});
        factors.push_back({G, layer.G.size, layer.G.size, &numbers[1].scale, &numbers[1].damping,
                           layer.G_inverses.of(group), factor + 1});
      }
    };
    const auto damp = [&](const std::vector<FactorPair>& pairs, const float* damping) {
      split_damping(pairs, damping, call.stream);
    };
    refresh_pairs<FactorPair>(call, attributes_, Layout::kArrays, *inverses_, collect, damp);
  }

 private:
  SplitDampingAttributes attributes_;
  // Per layer: index of its first factor among all. A and G alternate, group by group.
  std::vector<int> first_;
  int numbers_;
  std::unique_ptr<DampedInverses> inverses_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(KroneckerRefresh, ms_kfac::KroneckerRefreshKernel)
