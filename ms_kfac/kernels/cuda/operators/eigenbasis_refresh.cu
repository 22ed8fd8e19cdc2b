// EKFAC: new eigenbases of both Kronecker factors for every layer that is due. The second moments restart at zero. A
// layer without statistics gets identities and S_G = 0.

#include "../eigenbasis/eigendecomposition.h"
#include "../inverse/refresh.h"
#include "../scheduling/array_chunks.h"
#include "../scheduling/item_batch.h"

namespace ms_kfac {
namespace {

using Layout = EigenbasisRefreshLayout;

struct Layer {
  Matrices A, G, Q_A, Q_G;
  int64_t moments_size;
  float *S_A, *S_G, *counts, *moments, *fresh, *damping;

  explicit Layer(const LayerArrays& arrays)
      : A(arrays.matrices(Layout::A_sum)),
        G(arrays.matrices(Layout::G_sum, A.groups)),
        Q_A(arrays.like(A, Layout::Q_A)),
        Q_G(arrays.like(G, Layout::Q_G)),
        moments_size(A.groups * A.size * G.size),
        S_A(arrays.floats(Layout::S_A, A.groups * A.size)),
        S_G(arrays.floats(Layout::S_G, A.groups * G.size)),
        counts(arrays.floats(Layout::weights, 3)),
        moments(arrays.floats(Layout::s_sum, moments_size)),
        fresh(arrays.floats(Layout::fresh, 1)),
        damping(arrays.floats(Layout::damping, 1)) {}
};

// What restarts in a layer. Its first factor's verdict holds for all of the call, because only NaN and infinity fail.
struct Restart {
  float *moments, *S_G, *counts, *fresh, *damping;
  int64_t moments_size, S_G_size;
  int factor;

  int64_t blocks() const { return chunks(moments_size); }
};

struct RestartCommon {
  Verdicts verdicts;
  const float* damping;
};

__global__ void __launch_bounds__(kChunkThreads)
    eigenbasis_restart(const __grid_constant__ ItemBatch<Restart, RestartCommon> batch) {
  unsigned chunk;
  const Restart& layer = batch.items[batch.find(chunk)];
  if (!batch.common.verdicts.written(layer.factor)) return;
  visit_chunk(chunk, layer.moments_size, aligned(layer.moments),
              [&](auto count, int64_t first) { Pack<decltype(count)::value>{}.store(layer.moments + first); });
  if (chunk > 0) return;
  const bool unseen = layer.counts[0] == 0.0f;
  if (unseen)
    for (int64_t i = threadIdx.x; i < layer.S_G_size; i += kChunkThreads) layer.S_G[i] = 0.0f;
  if (threadIdx.x > 0) return;
  layer.counts[2] = 0.0f;
  *layer.fresh = 1.0f;
  *layer.damping = unseen ? 1.0f : *batch.common.damping;
}

class EigenbasisRefreshKernel {
 public:
  EigenbasisRefreshKernel(AotExtra& extra, const Arguments& shapes) : attributes_(extra) {
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
    decompositions_ = std::make_unique<Eigendecompositions>(extra, std::move(sizes), std::move(names));
  }

  void run(const Call& call) const {
    const float* damping = damping_of(call.arguments);
    const std::vector<int32_t> due = read_due(call, attributes_, Layout::kArrays);
    decompositions_->take_failures(attributes_.reporter);
    std::vector<EigenFactor> factors;
    std::vector<Restart> layers;
    for_due_layers(call.arguments, due.data(), attributes_, Layout::kArrays, [&](int index, const LayerArrays& arrays) {
      const Layer layer(arrays);
      const auto add = [&](const Matrices& of, const Matrices& vectors, int side, float* values, int64_t group) {
        factors.push_back({of.of(group), layer.counts + side, layer.counts, of.size, values + group * of.size,
                           vectors.of(group), first_[index] + 2 * static_cast<int>(group) + side});
      };
      for (int64_t group = 0; group < layer.A.groups; ++group) {
        add(layer.A, layer.Q_A, 0, layer.S_A, group);
        add(layer.G, layer.Q_G, 1, layer.S_G, group);
      }
      layers.push_back({layer.moments, layer.S_G, layer.counts, layer.fresh, layer.damping, layer.moments_size,
                        layer.G.groups * layer.G.size, first_[index]});
    });
    if (factors.empty()) return;
    const Verdicts verdicts = decompositions_->run(factors, call);
    launch_items(eigenbasis_restart, layers, RestartCommon{verdicts, damping}, kChunkThreads, call.stream);
  }

 private:
  RefreshAttributes attributes_;
  // Per layer: index of its first factor among all. A and G alternate, group by group.
  std::vector<int> first_;
  std::unique_ptr<Eigendecompositions> decompositions_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(EigenbasisRefresh, ms_kfac::EigenbasisRefreshKernel)
