// Full or rank-one refreshes of both inverses of every layer that is due.
//
// A layer's arrays: A_sum, G_sum, A_diagonal, G_diagonal, counts (4), full, refreshes, A_inverse, G_inverse and, with
// `rescales`, A_trace, G_trace, scale. All but counts, full and refreshes have a leading axis where there are groups.

#include <algorithm>
#include <cmath>

#include "../damped_inverse.h"
#include "../factor_damping.h"
#include "../rank_one_inverse.h"
#include "refresh.h"

namespace {

struct ShermanMorrisonRefreshAttributes : ms_kfac::RefreshAttributes {
  // One a layer: k, rank-one updates between two full refreshes (0: there is no second one), whether scale is kept.
  std::vector<int64_t> full_refreshes, interval, rescales;
  std::vector<float> alpha, beta;

  explicit ShermanMorrisonRefreshAttributes(AotExtra& extra)
      : RefreshAttributes(extra),
        full_refreshes(extra.GetAttrIntVec("full_refreshes")),
        interval(extra.GetAttrIntVec("interval")),
        rescales(extra.GetAttrIntVec("rescales")),
        alpha(extra.GetAttrFloatVec("alpha")),
        beta(extra.GetAttrFloatVec("beta")) {}
};

enum Index { kASum, kGSum, kADiagonal, kGDiagonal, kCounts, kFull, kRefreshes, kA, kG, kATrace, kGTrace, kScale };

class Layer {
 public:
  Layer(const ShermanMorrisonRefreshAttributes& attributes, int layer, const ms_kfac::LayerArrays& arrays)
      : attributes_(attributes),
        layer_(layer),
        arrays_(arrays),
        groups_(ms_kfac::batch_of(arrays[kASum])),
        size_A_(ms_kfac::size_of(arrays[kASum])),
        size_G_(ms_kfac::size_of(arrays[kGSum])) {}

  // Full statistics of both factors.
  bool ready() const { return arrays_.number(kFull) > 0 && counts()[0] * counts()[1] > 0; }

  void invert(float lambda, std::vector<ms_kfac::DampedFactor>& factors) const {
    const std::string& name = attributes_.layers[layer_];
    const float scale_A = ms_kfac::average_scale(counts()[0]), scale_G = ms_kfac::average_scale(counts()[1]);
    for (int64_t group = 0; group < groups_; ++group) {
      const int64_t from_A = group * size_A_ * size_A_, from_G = group * size_G_ * size_G_;
      const float* A = arrays_[kASum].floats() + from_A;
      const float* G = arrays_[kGSum].floats() + from_G;
      const double trace_A = scale_A * ms_kfac::diagonal_sum(A, size_A_);
      const double trace_G = scale_G * ms_kfac::diagonal_sum(G, size_G_);
      const ms_kfac::SplitDamping damping = ms_kfac::pi_split(trace_A, size_A_, trace_G, size_G_, lambda);
      factors.push_back({name + ": factor A", A, size_A_, size_A_, scale_A, damping.A, arrays_[kA].floats() + from_A});
      factors.push_back({name + ": factor G", G, size_G_, size_G_, scale_G, damping.G, arrays_[kG].floats() + from_G});
      if (!attributes_.rescales[layer_]) continue;
      arrays_[kATrace].floats()[group] = static_cast<float>(trace_A + damping.A * size_A_);
      arrays_[kGTrace].floats()[group] = static_cast<float>(trace_G + damping.G * size_G_);
      arrays_[kScale].floats()[group] = 1.0f;
    }
  }

  void update(float lambda, std::vector<ms_kfac::RankOneUpdate>& updates) const {
    const float alpha = attributes_.alpha[layer_], beta = attributes_.beta[layer_];
    for (int64_t group = 0; group < groups_; ++group) {
      double trace_A, trace_G;
      std::vector<float> u = roots(kADiagonal, counts()[2], group, size_A_, trace_A);
      std::vector<float> v = roots(kGDiagonal, counts()[3], group, size_G_, trace_G);
      updates.push_back({arrays_[kA].floats() + group * size_A_ * size_A_, size_A_, std::move(u), alpha});
      updates.push_back({arrays_[kG].floats() + group * size_G_ * size_G_, size_G_, std::move(v), beta});
      if (!attributes_.rescales[layer_]) continue;
      const ms_kfac::SplitDamping damping = ms_kfac::pi_split(trace_A, size_A_, trace_G, size_G_, lambda);
      float& implied_A = arrays_[kATrace].floats()[group];
      float& implied_G = arrays_[kGTrace].floats()[group];
      implied_A += static_cast<float>(alpha * trace_A);
      implied_G += static_cast<float>(beta * trace_G);
      // 1 for a layer without statistics, whose inverses stay identities.
      const bool seen = counts()[2] * counts()[3] > 0;
      const double scale =
          (implied_A / (trace_A + damping.A * size_A_)) * (implied_G / (trace_G + damping.G * size_G_));
      arrays_[kScale].floats()[group] = seen ? static_cast<float>(scale) : 1.0f;
    }
  }

  // Keeps the number of refreshes, and decides whether the coming one is full. Clears the sums where they start anew:
  // what they hold is older than all the updates since.
  void count_refresh(bool counted) const {
    float& refreshes = arrays_[kRefreshes].floats()[0];
    float& full = arrays_[kFull].floats()[0];
    if (counted) refreshes += 1.0f;
    const int64_t beyond = static_cast<int64_t>(refreshes) - attributes_.full_refreshes[layer_];
    const int64_t interval = attributes_.interval[layer_];
    const bool again = interval > 0 && beyond >= 0 && beyond % (interval + 1) == interval;
    const float coming = beyond < 0 || again ? 1.0f : 0.0f;
    if (interval > 0 && coming > full) {
      for (int sums : {kASum, kGSum}) std::fill_n(arrays_[sums].floats(), arrays_[sums].size(), 0.0f);
      std::fill_n(counts(), 2, 0.0f);
    }
    full = coming;
  }

  bool full() const { return arrays_.number(kFull) > 0; }

 private:
  float* counts() const { return arrays_[kCounts].floats(); }

  std::vector<float> roots(int index, float count, int64_t group, int size, double& trace) const {
    const float scale = ms_kfac::average_scale(count);
    const float* diagonal = arrays_[index].floats() + group * size;
    std::vector<float> result(size);
    trace = 0;
    for (int i = 0; i < size; ++i) {
      result[i] = std::sqrt(scale * diagonal[i]);
      trace += scale * diagonal[i];
    }
    return result;
  }

  const ShermanMorrisonRefreshAttributes& attributes_;
  int layer_;
  ms_kfac::LayerArrays arrays_;
  int64_t groups_;
  int size_A_, size_G_;
};

}  // namespace

MS_KFAC_OPERATOR(ShermanMorrisonRefresh) {
  const float lambda = arguments[1].floats()[0];
  std::vector<ms_kfac::DampedFactor> factors;
  std::vector<ms_kfac::RankOneUpdate> updates;
  ms_kfac::for_due_layers(arguments, attributes, [&](int index, const ms_kfac::LayerArrays& arrays) {
    const Layer layer(attributes, index, arrays);
    const bool ready = layer.ready();
    if (ready)
      layer.invert(lambda, factors);
    else
      layer.update(lambda, updates);
    // A rank-one update in the place of a full refresh doesn't count. Sums that are inverted below are never cleared
    // here, because their refresh was full already.
    layer.count_refresh(ready || !layer.full());
  });
  ms_kfac::invert_damped(std::move(factors));
  ms_kfac::update_inverses(updates);
}
