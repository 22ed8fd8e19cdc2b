// TKFAC: damped inverses of both trace-restricted factors for every layer that is due. beta is read only with
// `expands`. A layer without statistics gets identities.

#include <algorithm>
#include <cmath>

#include "../../interface/factored_tikhonov.h"
#include "../linalg/damped_inverse.h"
#include "refresh.h"

namespace {

using Layout = ms_kfac::TraceRestrictedRefreshLayout;

// One number per layer. All but nu are 0 or 1.
struct TraceRestrictedRefreshAttributes : ms_kfac::RefreshAttributes {
  std::vector<int64_t> automatic, homogeneous, expands, roots;
  std::vector<float> nu;

  explicit TraceRestrictedRefreshAttributes(AotExtra& extra)
      : RefreshAttributes(extra),
        automatic(extra.GetAttrIntVec("automatic")),
        homogeneous(extra.GetAttrIntVec("homogeneous")),
        expands(extra.GetAttrIntVec("expands")),
        roots(extra.GetAttrIntVec("roots")),
        nu(extra.GetAttrFloatVec("nu")) {}
};

// The factor of the sums, and the shift of the diagonal before its division by the dimension.
struct GrowthAndShift {
  double scale, shift;
};

// With `roots` the sums are of sqrt(delta) Phi, and the shifts have their own sum.
GrowthAndShift growth_and_shift(const TraceRestrictedRefreshAttributes& attributes, int layer, double count,
                                double delta, double root_shift, double beta) {
  const bool roots = attributes.roots[layer], homogeneous = attributes.homogeneous[layer];
  const bool expands = attributes.expands[layer];
  const double nu = attributes.nu[layer];
  // If the trace is zero, so are the sums.
  const double scale = roots ? 1.0 / count : delta > 0 ? 1.0 / (count * std::sqrt(delta)) : 0.0;
  if (!attributes.automatic[layer]) return {scale, 0.0};
  const double expanded = std::max(expands ? delta * beta : delta, nu);
  const double growth = delta > 0 ? std::sqrt(expanded / delta) : 0.0;
  if (!roots) return {scale * growth, homogeneous ? std::sqrt(expanded) : expanded};
  if (!expands) return {scale, root_shift};
  if (homogeneous) return {scale * growth, std::max(root_shift * std::sqrt(beta), std::sqrt(nu))};
  return {scale * growth, std::max(root_shift * beta, nu)};
}

}  // namespace

MS_KFAC_REFRESH_OPERATOR(TraceRestrictedRefresh) {
  const float lambda = ms_kfac::damping_of(arguments);
  std::vector<ms_kfac::DampedFactor> factors;
  ms_kfac::for_due_layers(
      arguments, attributes, due, Layout::kArrays, [&](int layer, const ms_kfac::LayerArrays& arrays) {
        const std::string& name = attributes.layers[layer];
        const ms_kfac::Matrices Phi = arrays.matrices(Layout::Phi_sum),
                                Psi = arrays.matrices(Layout::Psi_sum, Phi.groups);
        const ms_kfac::Matrices Phi_inverse = arrays.like(Phi, Layout::Phi_inverse),
                                Psi_inverse = arrays.like(Psi, Layout::Psi_inverse);
        const int64_t groups = Phi.groups;
        const float* traces = arrays.floats(Layout::traces, attributes.roots.at(layer) ? 2 * groups : groups);
        const double count = ms_kfac::number(arrays, Layout::weights);
        for (int64_t group = 0; group < groups; ++group) {
          float scale = 0.0f, shift_Phi = 1.0f, shift_Psi = 1.0f;
          if (count != 0.0) {
            const double root_shift = attributes.roots[layer] ? traces[groups + group] / count : 0.0;
            const GrowthAndShift found = growth_and_shift(attributes, layer, count, traces[group] / count, root_shift,
                                                          ms_kfac::number(arrays, Layout::beta));
            const bool automatic = attributes.automatic[layer];
            scale = static_cast<float>(found.scale);
            shift_Phi = automatic ? static_cast<float>(found.shift / Phi.size) : std::sqrt(lambda);
            shift_Psi = automatic ? static_cast<float>(found.shift / Psi.size) : std::sqrt(lambda);
          }
          factors.push_back(
              {name + ": factor Phi", Phi.of(group), Phi.size, Phi.size, scale, shift_Phi, Phi_inverse.of(group)});
          factors.push_back(
              {name + ": factor Psi", Psi.of(group), Psi.size, Psi.size, scale, shift_Psi, Psi_inverse.of(group)});
        }
      });
  ms_kfac::invert_damped(std::move(factors));
}
