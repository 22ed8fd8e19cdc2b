// SMKFAC: full or rank-one refreshes of both inverses for every layer that is due.

#include <algorithm>
#include <cmath>
#include <utility>

#include "../../interface/factored_tikhonov.h"
#include "../linalg/damped_inverse.h"
#include "../linalg/diagonal_sum.h"
#include "../linalg/finite.h"
#include "../linalg/rank_one_inverse.h"
#include "refresh.h"

namespace {

struct ShermanMorrisonRefreshAttributes : ms_kfac::SplitDampingAttributes {
  // One per layer. full_refreshes: k, the number of full refreshes at the start. interval: the number of rank-one
  // updates between two later full refreshes, 0 for none. rescales: whether the layer keeps a scale.
  std::vector<int64_t> full_refreshes, interval, rescales;
  std::vector<float> alpha, beta;

  explicit ShermanMorrisonRefreshAttributes(AotExtra& extra)
      : SplitDampingAttributes(extra),
        full_refreshes(extra.GetAttrIntVec("full_refreshes")),
        interval(extra.GetAttrIntVec("interval")),
        rescales(extra.GetAttrIntVec("rescales")),
        alpha(extra.GetAttrFloatVec("alpha")),
        beta(extra.GetAttrFloatVec("beta")) {}
};

using Layout = ms_kfac::ShermanMorrisonRefreshLayout;

// The work of all layers' refreshes.
struct Batch {
  std::vector<ms_kfac::DampedFactor> factors;
  std::vector<ms_kfac::RankOneUpdate> updates;
  // Numbers to write, with their new values, after the inverses are complete.
  std::vector<std::pair<float*, float>> numbers;
};

class Layer {
 public:
  Layer(const ShermanMorrisonRefreshAttributes& attributes, int layer, const ms_kfac::LayerArrays& arrays)
      : attributes_(attributes),
        layer_(layer),
        splits_(attributes.splits[layer] != 0),
        arrays_(arrays),
        sums_A_(arrays.matrices(Layout::A_sum)),
        sums_G_(arrays.matrices(Layout::G_sum, sums_A_.groups)),
        inverses_A_(arrays.like(sums_A_, Layout::A_inverse)),
        inverses_G_(arrays.like(sums_G_, Layout::G_inverse)),
        counts_(arrays.floats(Layout::counts, 4)),
        full_(arrays.floats(Layout::full, 1)),
        refreshes_(arrays.floats(Layout::refreshes, 1)),
        groups_(sums_A_.groups),
        size_A_(sums_A_.size),
        size_G_(sums_G_.size),
        // Whether both factors have full statistics.
        ready_(*full_ > 0 && counts_[0] * counts_[1] > 0) {}

  void add_to(Batch& batch, float lambda) const {
    if (ready_)
      invert(lambda, batch);
    else
      update(lambda, batch);
  }

  // Counts the refresh and decides whether the next one is full. If sums restart, it clears them: they hold statistics
  // older than all updates since. A rank-one update that replaces a full refresh doesn't count.
  void count_refresh() const {
    if (ready_ || !(*full_ > 0)) *refreshes_ += 1.0f;
    const int64_t beyond = static_cast<int64_t>(*refreshes_) - attributes_.full_refreshes[layer_];
    const int64_t interval = attributes_.interval[layer_];
    const bool again = interval > 0 && beyond >= 0 && beyond % (interval + 1) == interval;
    const float coming = beyond < 0 || again ? 1.0f : 0.0f;
    if (interval > 0 && coming > *full_) {
      for (const ms_kfac::Matrices& sums : {sums_A_, sums_G_})
        std::fill_n(sums.data, sums.groups * sums.size * sums.size, 0.0f);
      std::fill_n(counts_, 2, 0.0f);
    }
    *full_ = coming;
  }

 private:
  void invert(float lambda, Batch& batch) const {
    const std::string& name = attributes_.layers[layer_];
    const float scale_A = ms_kfac::average_scale(counts_[0]), scale_G = ms_kfac::average_scale(counts_[1]);
    for (int64_t group = 0; group < groups_; ++group) {
      const float* A = sums_A_.of(group);
      const float* G = sums_G_.of(group);
      const double trace_A = scale_A * ms_kfac::diagonal_sum(A, size_A_);
      const double trace_G = scale_G * ms_kfac::diagonal_sum(G, size_G_);
      const ms_kfac::SplitDamping damping = ms_kfac::pi_split(trace_A, size_A_, trace_G, size_G_, lambda, splits_);
      batch.factors.push_back({name + ": factor A", A, size_A_, size_A_, scale_A, damping.A, inverses_A_.of(group)});
      batch.factors.push_back({name + ": factor G", G, size_G_, size_G_, scale_G, damping.G, inverses_G_.of(group)});
      keep(batch, group, trace_A + damping.A * size_A_, trace_G + damping.G * size_G_, 1.0);
    }
  }

  void update(float lambda, Batch& batch) const {
    const float alpha = attributes_.alpha[layer_], beta = attributes_.beta[layer_];
    for (int64_t group = 0; group < groups_; ++group) {
      double trace_A, trace_G;
      std::vector<float> u = roots(Layout::A_diagonal, counts_[2], group, size_A_, trace_A);
      std::vector<float> v = roots(Layout::G_diagonal, counts_[3], group, size_G_, trace_G);
      batch.updates.push_back({inverses_A_.of(group), size_A_, std::move(u), alpha});
      batch.updates.push_back({inverses_G_.of(group), size_G_, std::move(v), beta});
      if (!attributes_.rescales.at(layer_)) continue;
      const ms_kfac::SplitDamping damping = ms_kfac::pi_split(trace_A, size_A_, trace_G, size_G_, lambda, splits_);
      const float implied_A = arrays_.floats(Layout::A_trace, groups_)[group] + static_cast<float>(alpha * trace_A);
      const float implied_G = arrays_.floats(Layout::G_trace, groups_)[group] + static_cast<float>(beta * trace_G);
      // A layer without statistics keeps its identities, so its scale is 1.
      const bool seen = counts_[2] * counts_[3] > 0;
      const double scale =
          (implied_A / (trace_A + damping.A * size_A_)) * (implied_G / (trace_G + damping.G * size_G_));
      keep(batch, group, implied_A, implied_G, seen ? scale : 1.0);
    }
  }

  std::vector<float> roots(int index, float count, int64_t group, int size, double& trace) const {
    const float scale = ms_kfac::average_scale(count);
    const float* diagonal = arrays_.floats(index, groups_ * size) + group * size;
    std::vector<float> result(size);
    trace = 0;
    for (int i = 0; i < size; ++i) {
      result[i] = std::sqrt(scale * diagonal[i]);
      trace += scale * diagonal[i];
    }
    if (!ms_kfac::all_finite(result.data(), size))
      throw ms_kfac::FactorFailure(
          attributes_.layers[layer_] + ": the diagonal of factor " + (index == Layout::A_diagonal ? "A" : "G"),
          " holds NaN, infinity or a negative number");
    return result;
  }

  void keep(Batch& batch, int64_t group, double trace_A, double trace_G, double scale) const {
    if (!attributes_.rescales.at(layer_)) return;
    batch.numbers.push_back({arrays_.floats(Layout::A_trace, groups_) + group, static_cast<float>(trace_A)});
    batch.numbers.push_back({arrays_.floats(Layout::G_trace, groups_) + group, static_cast<float>(trace_G)});
    batch.numbers.push_back({arrays_.floats(Layout::scale, groups_) + group, static_cast<float>(scale)});
  }

  const ShermanMorrisonRefreshAttributes& attributes_;
  int layer_;
  bool splits_;
  ms_kfac::LayerArrays arrays_;
  ms_kfac::Matrices sums_A_, sums_G_, inverses_A_, inverses_G_;
  float *counts_, *full_, *refreshes_;
  int64_t groups_;
  int size_A_, size_G_;
  bool ready_;
};

}  // namespace

MS_KFAC_REFRESH_OPERATOR(ShermanMorrisonRefresh) {
  const float lambda = ms_kfac::damping_of(arguments);
  const auto& rescales = attributes.rescales;
  const bool traces = std::any_of(rescales.begin(), rescales.end(), [](int64_t rescale) { return rescale != 0; });
  Batch batch;
  std::vector<Layer> layers;
  ms_kfac::for_due_layers(arguments, attributes, due, traces ? Layout::kArrays : Layout::A_trace,
                          [&](int index, const ms_kfac::LayerArrays& arrays) {
                            layers.emplace_back(attributes, index, arrays);
                            layers.back().add_to(batch, lambda);
                          });
  ms_kfac::invert_damped(std::move(batch.factors));
  ms_kfac::update_inverses(batch.updates);
  for (const auto& [number, value] : batch.numbers) *number = value;
  for (const Layer& layer : layers) layer.count_refresh();
}
