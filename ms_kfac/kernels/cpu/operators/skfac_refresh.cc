// Z of Woodbury's identity, or a dense inverse, of both factors for every layer that is due. The numbers of rows
// include the loss scale, so they may be fractions. A layer that lacks statistics of a factor stays unchanged.

#include <algorithm>
#include <cmath>
#include <utility>

#include "../../interface/factored_tikhonov.h"
#include "../linalg/damped_inverse.h"
#include "../linalg/diagonal_sum.h"
#include "../linalg/low_rank_inverse.h"
#include "refresh.h"

namespace {

using Layout = ms_kfac::SKFACRefreshLayout;
using SKFACRefreshAttributes = ms_kfac::SplitDampingAttributes;

struct Batch {
  std::vector<ms_kfac::LowRankFactor> low_rank;
  std::vector<ms_kfac::DampedFactor> dense;
  // Numbers to write, with their new values, after the solvers are complete.
  std::vector<std::pair<float*, float>> numbers;

  void run() {
    // Check all factors before anything is written.
    ms_kfac::require_finite(dense);
    ms_kfac::require_finite(low_rank);
    ms_kfac::invert_damped(dense, [&] { ms_kfac::invert_low_rank(low_rank); });
    for (const ms_kfac::LowRankFactor& of : low_rank)
      std::fill_n(of.Z + int64_t{of.rank} * of.size, int64_t{of.size - of.rank} * of.size, 0.0f);
    for (const auto& [number, value] : numbers) *number = value;
  }
};

class Factor {
 public:
  // Side 0 is A, side 1 is G.
  Factor(std::string name, const ms_kfac::LayerArrays& arrays, const float* weights, int side)
      : name_(std::move(name)),
        rows_(arrays.matrices(Layout::A_rows + side)),
        solver_(arrays.like(rows_, Layout::A_solver + side)),
        size_(rows_.size) {
    const float rank = weights[2 + side];
    if (!(rank >= 1.0f && rank <= size_))
      throw std::invalid_argument(name_ + " has " + std::to_string(size_) + " rows and a rank of " +
                                  std::to_string(rank));
    rank_ = static_cast<int>(rank);
    const float rows = std::max(weights[side], ms_kfac::kSmallestCount);
    scale_ = low() ? 1.0f / std::sqrt(rows) : 1.0f / rows;
  }

  int size() const { return size_; }
  int rank() const { return rank_; }
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

MS_KFAC_REFRESH_OPERATOR(SKFACRefresh) {
  const float lambda = ms_kfac::damping_of(arguments);
  Batch batch;
  ms_kfac::for_due_layers(
      arguments, attributes, due, Layout::kArrays, [&](int layer, const ms_kfac::LayerArrays& arrays) {
        const float* weights = arrays.floats(Layout::weights, 4);
        if (weights[0] == 0.0f || weights[1] == 0.0f) return;
        const Factor A(attributes.layers[layer] + ": factor A", arrays, weights, 0);
        const Factor G(attributes.layers[layer] + ": factor G", arrays, weights, 1);
        if (A.groups() != G.groups())
          throw std::invalid_argument(attributes.layers[layer] + ": the factors have " + std::to_string(A.groups()) +
                                      " and " + std::to_string(G.groups()) + " groups");
        const bool splits = attributes.splits[layer] != 0;
        float* damping_A = arrays.floats(Layout::A_damping, A.groups());
        float* damping_G = arrays.floats(Layout::G_damping, A.groups());
        for (int64_t group = 0; group < A.groups(); ++group) {
          const double trace_A = splits ? A.trace(group) : 0, trace_G = splits ? G.trace(group) : 0;
          const ms_kfac::SplitDamping damping = ms_kfac::pi_split(trace_A, A.size(), trace_G, G.size(), lambda, splits);
          A.add_to(batch, group, damping.A);
          G.add_to(batch, group, damping.G);
          batch.numbers.push_back({damping_A + group, damping.A});
          batch.numbers.push_back({damping_G + group, damping.G});
        }
        float* ranks = arrays.floats(Layout::solver_ranks, 2);
        batch.numbers.push_back({ranks, static_cast<float>(A.rank())});
        batch.numbers.push_back({ranks + 1, static_cast<float>(G.rank())});
      });
  batch.run();
}
