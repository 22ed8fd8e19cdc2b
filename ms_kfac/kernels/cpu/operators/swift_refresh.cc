// Z of Woodbury's identity, or a dense inverse, of both factors of every layer that is due.
//
// A layer's arrays: A_rows, A_count (3: rows present, whether the next join them, the rank), G_rows, G_count, A_solver,
// G_solver, A_damping, G_damping, refreshed. Rows, solvers and dampings have a leading axis where there are groups. A
// layer without statistics of both factors stays as it is.

#include <algorithm>
#include <cmath>
#include <utility>

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
  // Numbers and what they become when the solvers are there.
  std::vector<std::pair<float*, float>> numbers;

  void run() {
    // All before any is written.
    ms_kfac::require_finite(dense);
    ms_kfac::require_finite(low_rank);
    ms_kfac::invert_damped(dense);
    ms_kfac::invert_low_rank(low_rank);
    for (const ms_kfac::LowRankFactor& of : low_rank)
      std::fill_n(of.Z + int64_t{of.rank} * of.size, int64_t{of.size - of.rank} * of.size, 0.0f);
    for (const auto& [number, value] : numbers) *number = value;
  }
};

class Factor {
 public:
  Factor(std::string name, const ms_kfac::LayerArrays& arrays, int rows, int solver)
      : name_(std::move(name)), rows_(arrays.matrices(rows)), solver_(arrays.like(rows_, solver)), size_(rows_.size) {
    const float* count = arrays.floats(rows + 1, 3);
    const float rank = count[2];
    if (!(rank >= 1.0f && rank <= size_))
      throw std::invalid_argument(name_ + " has " + std::to_string(size_) + " rows and a rank of " +
                                  std::to_string(rank));
    rank_ = static_cast<int>(rank);
    const float present = std::max(count[0], ms_kfac::kSmallestCount);
    scale_ = low() ? 1.0f / std::sqrt(std::min(present, static_cast<float>(rank_))) : 1.0f / present;
  }

  int size() const { return size_; }
  int64_t groups() const { return rows_.groups; }

  double trace(int64_t group) const {
    const float* rows = rows_.of(group);
    if (!low()) return scale_ * ms_kfac::diagonal_sum(rows, size_);
    double sum = 0;
    for (int64_t i = 0; i < int64_t{rank_} * size_; ++i) sum += double(rows[i]) * rows[i];
    return double(scale_) * scale_ * sum;
  }

  void add_to(Batch& batch, int64_t group, float damping) const {
    if (low())
      batch.low_rank.push_back({name_, rows_.of(group), rank_, size_, scale_, damping, solver_.of(group)});
    else
      batch.dense.push_back({name_, rows_.of(group), size_, size_, scale_, damping, solver_.of(group)});
  }

 private:
  bool low() const { return rank_ < size_; }

  std::string name_;
  ms_kfac::Matrices rows_, solver_;
  int size_, rank_;
  float scale_;
};

}  // namespace

MS_KFAC_OPERATOR(SwiftRefresh) {
  const float lambda = ms_kfac::damping_of(arguments);
  Batch batch;
  ms_kfac::for_due_layers(arguments, attributes, 9, [&](int layer, const ms_kfac::LayerArrays& arrays) {
    if (arrays.floats(1, 3)[0] == 0.0f || arrays.floats(3, 3)[0] == 0.0f) return;
    const Factor A(attributes.layers[layer] + ": factor A", arrays, 0, 4);
    const Factor G(attributes.layers[layer] + ": factor G", arrays, 2, 5);
    if (A.groups() != G.groups())
      throw std::invalid_argument(attributes.layers[layer] + ": the factors have " + std::to_string(A.groups()) +
                                  " and " + std::to_string(G.groups()) + " groups");
    float* damping_A = arrays.floats(6, A.groups());
    float* damping_G = arrays.floats(7, A.groups());
    for (int64_t group = 0; group < A.groups(); ++group) {
      ms_kfac::SplitDamping damping{std::sqrt(lambda), std::sqrt(lambda)};
      if (attributes.splits[layer])
        damping = ms_kfac::pi_split(A.trace(group), A.size(), G.trace(group), G.size(), lambda);
      A.add_to(batch, group, damping.A);
      G.add_to(batch, group, damping.G);
      batch.numbers.push_back({damping_A + group, damping.A});
      batch.numbers.push_back({damping_G + group, damping.G});
    }
    batch.numbers.push_back({arrays.floats(8, 1), 1.0f});
  });
  batch.run();
}
