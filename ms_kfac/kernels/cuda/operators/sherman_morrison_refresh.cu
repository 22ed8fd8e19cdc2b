// SMKFAC: full or rank-one refreshes of both inverses, for every layer that is due. Formulas:
// ms_kfac/ops/refresh/sherman_morrison_refresh.py.
//
// The host reads what is due and which kind of refresh each layer needs: full, counts, refreshes. An update is skipped
// if its diagonal holds NaN, infinity or a negative number, and the next call throws. A full refresh that fails (see
// damped_inverse.h) is not counted: the layer's next refresh is full again.

#include <algorithm>

#include "../inverse/refresh.h"
#include "../inverse/sherman_morrison_numbers.h"
#include "../scheduling/cleared_arrays.h"
#include "../scheduling/counter_memory.h"
#include "../scheduling/gathered_numbers.h"

namespace ms_kfac {
namespace {

using Layout = ShermanMorrisonRefreshLayout;

// The arrays of one layer.
struct Layer {
  Matrices A_sums, G_sums, A_inverses, G_inverses;
  const float *A_diagonal, *G_diagonal;
  float *counts, *full, *refreshes;
  float *A_trace = nullptr, *G_trace = nullptr, *scale = nullptr;

  Layer(const LayerArrays& arrays, bool rescales)
      : A_sums(arrays.matrices(Layout::A_sum)),
        G_sums(arrays.matrices(Layout::G_sum, A_sums.groups)),
        A_inverses(arrays.like(A_sums, Layout::A_inverse)),
        G_inverses(arrays.like(G_sums, Layout::G_inverse)),
        A_diagonal(arrays.floats(Layout::A_diagonal, A_sums.groups * A_sums.size)),
        G_diagonal(arrays.floats(Layout::G_diagonal, A_sums.groups * G_sums.size)),
        counts(arrays.floats(Layout::counts, 4)),
        full(arrays.floats(Layout::full, 1)),
        refreshes(arrays.floats(Layout::refreshes, 1)) {
    if (!rescales) return;
    A_trace = arrays.floats(Layout::A_trace, A_sums.groups);
    G_trace = arrays.floats(Layout::G_trace, A_sums.groups);
    scale = arrays.floats(Layout::scale, A_sums.groups);
  }
};

// One factor of a layer's group, and the offsets of its results.
struct FactorPlace {
  int size;
  int64_t first_product, first_sum;
};

// The work of one call.
struct Work {
  std::vector<FactorPair> pairs;
  std::vector<DampedFactor> factors;
  std::vector<RankOneUpdate> updates;
  std::vector<LayerNumbers> numbers;
  std::vector<ClearedArray> cleared;
};

class ShermanMorrisonRefreshKernel {
 public:
  ShermanMorrisonRefreshKernel(AotExtra& extra, const Arguments& shapes)
      : attributes_(extra),
        full_refreshes_(extra.GetAttrIntVec("full_refreshes")),
        interval_(extra.GetAttrIntVec("interval")),
        rescales_(extra.GetAttrIntVec("rescales")),
        alpha_(extra.GetAttrFloatVec("alpha")),
        beta_(extra.GetAttrFloatVec("beta")),
        arrays_(std::any_of(rescales_.begin(), rescales_.end(), [](int64_t one) { return one != 0; })
                    ? Layout::kArrays
                    : Layout::A_trace),
        gathered_(extra, static_cast<int>(shapes[0].size() + 6 * attributes_.layers.size())) {
    std::vector<int> sizes;
    std::vector<std::string> names, diagonals;
    int64_t products = 0, sums = 0;
    for (size_t index = 0; index < attributes_.layers.size(); ++index) {
      const std::string& name = attributes_.layers[index];
      const Layer layer(LayerArrays(shapes, 2 + static_cast<int>(index) * arrays_, name), rescales_.at(index) != 0);
      first_.push_back(static_cast<int>(sizes.size()));
      for (int64_t factor = 0; factor < 2 * layer.A_sums.groups; ++factor) {
        const int size = factor % 2 == 0 ? layer.A_sums.size : layer.G_sums.size;
        const char* letter = factor % 2 == 0 ? "A" : "G";
        places_.push_back({size, products, sums});
        sizes.push_back(size);
        names.push_back(name + ": factor " + letter);
        diagonals.push_back(name + ": the root of the diagonal of factor " + letter);
        products += size;
        sums += RankOneUpdate{nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, size, 0, 0}.blocks();
      }
    }
    const size_t factors = sizes.size();
    products_ = add_workspace(extra, products * sizeof(float));
    sums_ = add_workspace(extra, sums * sizeof(RankOneSums));
    results_ = add_workspace(extra, factors * sizeof(RankOneResult));
    numbers_ = add_workspace(extra, factors * sizeof(FactorNumbers));
    counters_ = std::make_unique<CounterRange>(static_cast<int>(factors));
    inverses_ = std::make_unique<DampedInverses>(extra, std::move(sizes), std::move(names));
    failures_ = std::make_unique<InverseFailures>(std::move(diagonals));
  }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const float* damping = damping_of(arguments);
    expect_arrays(arguments, attributes_, arrays_);
    const std::vector<int32_t> always(arguments[0].size(), 1);
    NumberList list;
    const int dues = static_cast<int>(always.size());
    list.add(arguments[0].integers(), dues);
    std::vector<Layer> layers;
    for_due_layers(arguments, always.data(), attributes_, arrays_, [&](int index, const LayerArrays& arrays) {
      layers.emplace_back(arrays, rescales_[index] != 0);
      list.add(layers.back().counts, 4);
      list.add(layers.back().full);
      list.add(layers.back().refreshes);
    });
    const HostNumbers read = gathered_.read(list, call);
    inverses_->take_failures(attributes_.reporter);
    failures_->take(attributes_.reporter);
    Work work;
    for (int index = 0; index < static_cast<int>(layers.size()); ++index)
      if (read.integer(dues == 1 ? 0 : index) != 0) add(layers[index], index, read, dues + 6 * index, call, work);
    if (work.numbers.empty()) return;
    Verdicts verdicts{};
    if (!work.factors.empty()) {
      split_damping(work.pairs, damping, call.stream);
      verdicts = inverses_->run(work.factors, call);
    }
    update_inverses(work.updates, call.stream);
    const FactorResults results{damping, call.workspace<FactorNumbers>(numbers_),
                                call.workspace<RankOneResult>(results_), verdicts};
    launch_items(sherman_morrison_write_numbers, work.numbers, results, kNumberThreads, call.stream);
    launch_items(clear_arrays, work.cleared, NoCommonZeros{}, kChunkThreads, call.stream);
  }

 private:
  // Adds a layer that is due. Its numbers begin at index `place` of `read`.
  void add(const Layer& layer, int index, const HostNumbers& read, int place, const Call& call, Work& work) const {
    float counts[4];
    for (int i = 0; i < 4; ++i) counts[i] = read.number(place + i);
    const float full = read.number(place + 4);
    float refreshes = read.number(place + 5);
    // Whether the full statistics of both factors are available.
    const bool ready = full > 0 && counts[0] * counts[1] > 0;
    for (int64_t group = 0; group < layer.A_sums.groups; ++group)
      if (ready)
        invert(layer, index, group, call, work);
      else
        update(layer, index, group, counts, call, work);
    // A rank-one update that replaces a full refresh is not counted.
    if (ready || !(full > 0)) refreshes += 1.0f;
    const int64_t beyond = static_cast<int64_t>(refreshes) - full_refreshes_[index], interval = interval_[index];
    const bool again = interval > 0 && beyond >= 0 && beyond % (interval + 1) == interval;
    const float coming = beyond < 0 || again ? 1.0f : 0.0f;
    work.numbers.push_back({layer.refreshes, layer.full, layer.A_trace, layer.G_trace, layer.scale, refreshes, coming,
                            alpha_[index], beta_[index], static_cast<int>(layer.A_sums.groups), layer.A_sums.size,
                            layer.G_sums.size, first_[index], ready, counts[2] * counts[3] > 0,
                            attributes_.splits[index] != 0});
    if (interval == 0 || !(coming > full)) return;
    // The sums are older than all rank-one updates since then.
    for (const Matrices& sums : {layer.A_sums, layer.G_sums})
      work.cleared.push_back({sums.data, sums.groups * sums.size * sums.size});
    work.cleared.push_back({layer.counts, 2});
  }

  void invert(const Layer& layer, int index, int64_t group, const Call& call, Work& work) const {
    const int factor = first_[index] + 2 * static_cast<int>(group);
    FactorNumbers* numbers = call.workspace<FactorNumbers>(numbers_) + factor;
    const float *A = layer.A_sums.of(group), *G = layer.G_sums.of(group);
    const int size_A = layer.A_sums.size, size_G = layer.G_sums.size;
    work.pairs.push_back(
        {A, layer.counts, G, layer.counts + 1, size_A, size_G, attributes_.splits[index] != 0, numbers});
    work.factors.push_back(
        {A, size_A, size_A, &numbers[0].scale, &numbers[0].damping, layer.A_inverses.of(group), factor});
    work.factors.push_back(
        {G, size_G, size_G, &numbers[1].scale, &numbers[1].damping, layer.G_inverses.of(group), factor + 1});
  }

  void update(const Layer& layer, int index, int64_t group, const float (&counts)[4], const Call& call,
              Work& work) const {
    for (int side : {0, 1}) {
      const int factor = first_[index] + 2 * static_cast<int>(group) + side;
      const FactorPlace& place = places_[factor];
      work.updates.push_back(
          {(side == 0 ? layer.A_inverses : layer.G_inverses).of(group),
           (side == 0 ? layer.A_diagonal : layer.G_diagonal) + group * place.size,
           call.workspace<float>(products_) + place.first_product, call.workspace<RankOneSums>(sums_) + place.first_sum,
           call.workspace<RankOneResult>(results_) + factor, counters_->device() + factor, failures_->device() + factor,
           place.size, average_scale(counts[2 + side]), (side == 0 ? alpha_ : beta_)[index]});
    }
  }

  SplitDampingAttributes attributes_;
  // Per layer: k; the number of rank-one updates between two full refreshes (0: only the first k are full); whether
  // the scale is kept.
  std::vector<int64_t> full_refreshes_, interval_, rescales_;
  std::vector<float> alpha_, beta_;
  int arrays_;
  GatheredNumbers gathered_;
  // Per layer: index of its first factor among all. A and G alternate, group by group.
  std::vector<int> first_;
  std::vector<FactorPlace> places_;
  int products_, sums_, results_, numbers_;
  std::unique_ptr<CounterRange> counters_;
  std::unique_ptr<DampedInverses> inverses_;
  std::unique_ptr<InverseFailures> failures_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(ShermanMorrisonRefresh, ms_kfac::ShermanMorrisonRefreshKernel)
