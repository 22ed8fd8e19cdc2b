// TKFAC: damped inverses of both trace-restricted factors, for every layer that is due. beta is read only with
// `expands`. A layer without statistics gets identities. Formulas: ms_kfac/ops/refresh/trace_restricted_refresh.py.

#include "../inverse/factored_tikhonov.h"
#include "../inverse/refresh.h"
#include "../scheduling/item_batch.h"

namespace ms_kfac {
namespace {

using Layout = TraceRestrictedRefreshLayout;

// How a layer's factors are damped.
struct Damping {
  bool automatic, homogeneous, expands, roots;
  float nu;
};

// The inputs of the damping of the two factors of a layer's group. All pointers are device pointers.
struct Pair {
  const float *trace, *root_shift, *count, *beta;
  FactorNumbers* numbers;  // of Phi, then of Psi
  int size_Phi, size_Psi;
  Damping damping;

  int64_t blocks() const { return 1; }
};

struct Lambda {
  const float* damping;
};

// Factor of the sums, and the shift of the diagonal before it is divided by the dimension.
struct GrowthAndShift {
  double scale, shift;
};

// With `roots` the sums are of sqrt(delta) Phi, and the shifts have their own sum.
__device__ GrowthAndShift growth_and_shift(const Damping& of, double count, double delta, double root_shift,
                                           double beta) {
  const double nu = of.nu;
  // If the trace is zero, so are the sums.
  const double scale = of.roots ? 1.0 / count : delta > 0 ? 1.0 / (count * sqrt(delta)) : 0.0;
  if (!of.automatic) return {scale, 0.0};
  const double expanded = fmax(of.expands ? delta * beta : delta, nu);
  const double growth = delta > 0 ? sqrt(expanded / delta) : 0.0;
  if (!of.roots) return {scale * growth, of.homogeneous ? sqrt(expanded) : expanded};
  if (!of.expands) return {scale, root_shift};
  if (of.homogeneous) return {scale * growth, fmax(root_shift * sqrt(beta), sqrt(nu))};
  return {scale * growth, fmax(root_shift * beta, nu)};
}

// One block per pair.
__global__ void __launch_bounds__(32)
    trace_restricted_factor_damping(const __grid_constant__ ItemBatch<Pair, Lambda> batch) {
  unsigned block;
  const Pair& pair = batch.items[batch.find(block)];
  if (threadIdx.x > 0) return;
  const double count = *pair.count;
  float scale = 0.0f, shift_Phi = 1.0f, shift_Psi = 1.0f;
  if (count != 0.0) {
    const double root_shift = pair.damping.roots ? *pair.root_shift / count : 0.0;
    const GrowthAndShift found = growth_and_shift(pair.damping, count, *pair.trace / count, root_shift, *pair.beta);
    scale = static_cast<float>(found.scale);
    shift_Phi = shift_Psi = sqrtf(*batch.common.damping);
    if (pair.damping.automatic) {
      shift_Phi = static_cast<float>(found.shift / pair.size_Phi);
      shift_Psi = static_cast<float>(found.shift / pair.size_Psi);
    }
  }
  pair.numbers[0].scale = pair.numbers[1].scale = scale;
  pair.numbers[0].damping = shift_Phi;
  pair.numbers[1].damping = shift_Psi;
}

struct Layer {
  Matrices Phi, Psi, Phi_inverses, Psi_inverses;
  const float *traces, *count, *beta;

  Layer(const LayerArrays& arrays, bool roots)
      : Phi(arrays.matrices(Layout::Phi_sum)),
        Psi(arrays.matrices(Layout::Psi_sum, Phi.groups)),
        Phi_inverses(arrays.like(Phi, Layout::Phi_inverse)),
        Psi_inverses(arrays.like(Psi, Layout::Psi_inverse)),
        traces(arrays.floats(Layout::traces, roots ? 2 * Phi.groups : Phi.groups)),
        count(arrays.floats(Layout::weights, 1)),
        beta(arrays.floats(Layout::beta, 1)) {}
};

class TraceRestrictedRefreshKernel {
 public:
  TraceRestrictedRefreshKernel(AotExtra& extra, const Arguments& shapes) : attributes_(extra) {
    const auto automatic = extra.GetAttrIntVec("automatic"), homogeneous = extra.GetAttrIntVec("homogeneous"),
               expands = extra.GetAttrIntVec("expands"), roots = extra.GetAttrIntVec("roots");
    const std::vector<float> nu = extra.GetAttrFloatVec("nu");
    std::vector<int> sizes;
    std::vector<std::string> names;
    for (size_t index = 0; index < attributes_.layers.size(); ++index) {
      const std::string& name = attributes_.layers[index];
      dampings_.push_back({automatic.at(index) != 0, homogeneous.at(index) != 0, expands.at(index) != 0,
                           roots.at(index) != 0, nu.at(index)});
      const Layer layer(LayerArrays(shapes, 2 + static_cast<int>(index) * Layout::kArrays, name),
                        dampings_[index].roots);
      first_.push_back(static_cast<int>(sizes.size()));
      for (int64_t group = 0; group < layer.Phi.groups; ++group) {
        sizes.insert(sizes.end(), {layer.Phi.size, layer.Psi.size});
        names.insert(names.end(), {name + ": factor Phi", name + ": factor Psi"});
      }
    }
    numbers_ = add_workspace(extra, sizes.size() * sizeof(FactorNumbers));
    inverses_ = std::make_unique<DampedInverses>(extra, std::move(sizes), std::move(names));
  }

  void run(const Call& call) const {
    const auto collect = [&](int index, const LayerArrays& arrays, std::vector<Pair>& pairs,
                             std::vector<DampedFactor>& factors) {
      const Layer layer(arrays, dampings_[index].roots);
      for (int64_t group = 0; group < layer.Phi.groups; ++group) {
        const int factor = first_[index] + 2 * static_cast<int>(group);
        FactorNumbers* numbers = call.workspace<FactorNumbers>(numbers_) + factor;
        pairs.push_back({layer.traces + group, layer.traces + layer.Phi.groups + group, layer.count, layer.beta,
                         numbers, layer.Phi.size, layer.Psi.size, dampings_[index]});
        factors.push_back({layer.Phi.of(group), layer.Phi.size, layer.Phi.size, &numbers[0].scale, &numbers[0].damping,
                           layer.Phi_inverses.of(group), factor});
        factors.push_back({layer.Psi.of(group), layer.Psi.size, layer.Psi.size, &numbers[1].scale, &numbers[1].damping,
                           layer.Psi_inverses.of(group), factor + 1});
      }
    };
    const auto damp = [&](const std::vector<Pair>& pairs, const float* damping) {
      launch_items(trace_restricted_factor_damping, pairs, Lambda{damping}, 32, call.stream);
    };
    refresh_pairs<Pair>(call, attributes_, Layout::kArrays, *inverses_, collect, damp);
  }

 private:
  RefreshAttributes attributes_;
  std::vector<Damping> dampings_;
  // Per layer: index of its first factor among all. Phi and Psi alternate, group by group.
  std::vector<int> first_;
  int numbers_;
  std::unique_ptr<DampedInverses> inverses_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(TraceRestrictedRefresh, ms_kfac::TraceRestrictedRefreshKernel)
