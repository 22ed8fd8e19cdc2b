// Z of Woodbury's identity, or a dense inverse, of both factors of every layer that is due.
//
// A layer's arrays: A_rows, A_count (3: rows present, whether the next join them, the rank), G_rows, G_count, A_solver,
// G_solver, A_damping, G_damping, refreshed. Rows, solvers and dampings have a leading axis where there are groups. A
// layer without statistics stays as it is.

#include <algorithm>
#include <cmath>

#include "../damped_inverse.h"
#include "../factor_damping.h"
#include "../low_rank_inverse.h"
#include "refresh.h"

namespace {

struct SwiftRefreshAttributes : ms_kfac::RefreshAttributes {
  // Whether traces split the damping, one a layer.
  std::vector<int64_t> splits;

  explicit SwiftRefreshAttributes(AotExtra& extra) : RefreshAttributes(extra), splits(extra.GetAttrIntVec("splits")) {}
};

struct Batch {
  std::vector<ms_kfac::LowRankFactor> low_rank;
  std::vector<ms_kfac::DampedFactor> dense;
};

class Factor {
 public:
  Factor(std::string name, const ms_kfac::LayerArrays& arrays, int rows, int solver)
      : name_(std::move(name)),
        size_(ms_kfac::size_of(arrays[rows])),
        rank_(static_cast<int>(arrays[rows + 1].floats()[2])),
        rows_(arrays[rows].floats()),
        solver_(arrays[solver].floats()) {
    const float present = std::max(arrays[rows + 1].floats()[0], ms_kfac::kSmallestCount);
    scale_ = low() ? 1.0f / std::sqrt(std::min(present, static_cast<float>(rank_))) : 1.0f / present;
  }

  int size() const { return size_; }

  double trace(int64_t group) const {
    const float* rows = rows_ + group * size_ * size_;
    if (!low()) return scale_ * ms_kfac::diagonal_sum(rows, size_);
    double sum = 0;
    for (int64_t i = 0; i < int64_t{rank_} * size_; ++i) sum += double(rows[i]) * rows[i];
    return double(scale_) * scale_ * sum;
  }

  void add_to(Batch& batch, int64_t group, float damping) const {
    const int64_t from = group * size_ * size_;
    if (!low()) {
      batch.dense.push_back({name_, rows_ + from, size_, size_, scale_, damping, solver_ + from});
      return;
    }
    batch.low_rank.push_back({name_, rows_ + from, rank_, size_, scale_, damping, solver_ + from});
    std::fill_n(solver_ + from + int64_t{rank_} * size_, int64_t{size_ - rank_} * size_, 0.0f);
  }

 private:
  bool low() const { return rank_ < size_; }

  std::string name_;
  int size_, rank_;
  const float* rows_;
  float* solver_;
  float scale_;
};

}  // namespace

MS_KFAC_OPERATOR(SwiftRefresh) {
  const float lambda = arguments[1].floats()[0];
  Batch batch;
  ms_kfac::for_due_layers(arguments, attributes, [&](int layer, const ms_kfac::LayerArrays& arrays) {
    if (arrays.number(1) == 0.0f || arrays.number(3) == 0.0f) return;
    const Factor A(attributes.layers[layer] + ": factor A", arrays, 0, 4);
    const Factor G(attributes.layers[layer] + ": factor G", arrays, 2, 5);
    for (int64_t group = 0; group < ms_kfac::batch_of(arrays[0]); ++group) {
      ms_kfac::SplitDamping damping{std::sqrt(lambda), std::sqrt(lambda)};
      if (attributes.splits[layer])
        damping = ms_kfac::pi_split(A.trace(group), A.size(), G.trace(group), G.size(), lambda);
      A.add_to(batch, group, damping.A);
      G.add_to(batch, group, damping.G);
      arrays[6].floats()[group] = damping.A;
      arrays[7].floats()[group] = damping.G;
    }
    arrays[8].floats()[0] = 1.0f;
  });
  ms_kfac::invert_damped(std::move(batch.dense));
  ms_kfac::invert_low_rank(std::move(batch.low_rank));
}
