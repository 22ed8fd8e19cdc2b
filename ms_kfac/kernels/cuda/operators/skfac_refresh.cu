// Z of the Woodbury identity, or a dense inverse, of both factors, for every layer that is due. Row counts need not be
// integers. A layer is unchanged unless both factors have statistics. Formulas: ms_kfac/ops/refresh/skfac_refresh.py.
//
// Ranks and `due` are gathered and read on the host together, because they decide which launches are needed.

#include <algorithm>
#include <cmath>

#include "../inverse/damped_inverse.h"
#include "../inverse/factored_tikhonov.h"
#include "../inverse/refresh.h"
#include "../scheduling/gathered_numbers.h"
#include "../tile/block_sum.h"

namespace ms_kfac {
namespace {

using Layout = SKFACRefreshLayout;
constexpr int kThreads = 256;

// The inputs of the damping of one factor of a layer's group.
struct Part {
  const float* rows;
  int size, rank;
  float scale, growth;

  __host__ __device__ bool low() const { return rank < size; }

  // The trace of the scaled factor, returned in all threads.
  __device__ double trace() const {
    double sum = 0;
    if (low()) {
      for (int64_t i = threadIdx.x; i < int64_t{rank} * size; i += kThreads) {
        const double number = rows[i];
        sum += number * number;
      }
    } else {
      for (int64_t i = threadIdx.x; i < size; i += kThreads) sum += rows[i * size + i];
    }
    return (low() ? static_cast<double>(scale) * scale : scale) * block_sum<kThreads>(sum);
  }
};

struct Pair {
  Part parts[2];           // A, G
  FactorNumbers* numbers;  // of A, of G
  bool splits;

  int64_t blocks() const { return 1; }
};

struct Lambda {
  const float* damping;
};

// One block per pair. The damping of a dense factor grows where it is inverted. A low-rank factor stores its grown
// damping with Z.
__global__ void __launch_bounds__(kThreads)
    skfac_factor_damping(const __grid_constant__ ItemBatch<Pair, Lambda> batch) {
  unsigned block;
  const Pair& pair = batch.items[batch.find(block)];
  double traces[2] = {0, 0};
  for (const int side : {0, 1})
    if (pair.splits || pair.parts[side].growth != 1.0f) traces[side] = pair.parts[side].trace();
  if (threadIdx.x > 0) return;
  const SplitDamping split =
      pi_split(traces[0], pair.parts[0].size, traces[1], pair.parts[1].size, *batch.common.damping, pair.splits);
  for (const int side : {0, 1}) {
    const Part& part = pair.parts[side];
    const float damping = side == 0 ? split.A : split.G;
    pair.numbers[side] = {part.scale, part.low() ? grown_damping(damping, part.growth, traces[side]) : damping,
                          static_cast<float>(traces[side])};
  }
}

// Outputs of a layer's refresh other than its solvers.
struct Record {
  const FactorNumbers* numbers;  // two a group
  float* dampings[2];            // of A, of G
  float* solver_ranks;
  int ranks[2];
  int first, groups;

  int64_t blocks() const { return 1; }
};

// Stores the dampings of those solvers that were written, and the rank of a factor whose solvers all were.
__global__ void __launch_bounds__(32) skfac_write_damping(const __grid_constant__ ItemBatch<Record, Verdicts> batch) {
  unsigned block;
  const Record& record = batch.items[batch.find(block)];
  if (threadIdx.x > 0) return;
  for (const int side : {0, 1}) {
    bool all = true;
    for (int group = 0; group < record.groups; ++group) {
      const bool written = batch.common.written(record.first + 2 * group + side);
      if (written) record.dampings[side][group] = record.numbers[2 * group + side].damping;
      all = all && written;
    }
    if (all) record.solver_ranks[side] = static_cast<float>(record.ranks[side]);
  }
}

// Available statistics of a factor.
struct Present {
  float rows, rank;
};

// One factor of a layer.
struct Factor {
  std::string name;
  Matrices rows, solver;
  float* damping;

  Factor(const LayerArrays& arrays, const std::string& layer, int side)
      : name(layer + (side == 0 ? ": factor A" : ": factor G")),
        rows(arrays.matrices(Layout::A_rows + side)),
        solver(arrays.like(rows, Layout::A_solver + side)),
        damping(arrays.floats(Layout::A_damping + side, rows.groups)) {}
};

struct Layer {
  Factor A, G;
  float* solver_ranks;

  Layer(const LayerArrays& arrays, const std::string& name)
      : A(arrays, name, 0), G(arrays, name, 1), solver_ranks(arrays.floats(Layout::solver_ranks, 2)) {
    if (A.rows.groups != G.rows.groups)
      throw std::invalid_argument(name + ": the factors have " + std::to_string(A.rows.groups) + " and " +
                                  std::to_string(G.rows.groups) + " groups");
  }
};

class SKFACRefreshKernel {
 public:
  SKFACRefreshKernel(AotExtra& extra, const Arguments& shapes) : attributes_(extra) {
    std::vector<int> sizes;
    std::vector<std::string> names;
    for (size_t index = 0; index < attributes_.layers.size(); ++index) {
      const Layer layer(LayerArrays(shapes, 2 + static_cast<int>(index) * Layout::kArrays, attributes_.layers[index]),
                        attributes_.layers[index]);
      first_.push_back(static_cast<int>(sizes.size()));
      for (int64_t group = 0; group < layer.A.rows.groups; ++group) {
        sizes.insert(sizes.end(), {layer.A.rows.size, layer.G.rows.size});
        names.insert(names.end(), {layer.A.name, layer.G.name});
      }
    }
    // Per layer: whether it is due, and four weights.
    gathered_ = std::make_unique<GatheredNumbers>(extra, static_cast<int>(attributes_.layers.size()) * 5);
    numbers_ = add_workspace(extra, sizes.size() * sizeof(FactorNumbers));
    inverses_ = std::make_unique<DampedInverses>(extra, std::move(sizes), std::move(names));
  }

  void run(const Call& call) const {
    const float* lambda = damping_of(call.arguments);
    expect_arrays(call.arguments, attributes_, Layout::kArrays);
    const int layers = static_cast<int>(attributes_.layers.size());
    NumberList list;
    list.add(call.arguments[0].integers(), static_cast<int>(call.arguments[0].size()));
    std::vector<int> weights(layers);
    for (int index = 0; index < layers; ++index) {
      const LayerArrays arrays(call.arguments, 2 + index * Layout::kArrays, attributes_.layers[index]);
      weights[index] = list.add(arrays.floats(Layout::weights, 4), 4);
    }
    const HostNumbers read = gathered_->read(list, call);
    inverses_->take_failures(attributes_.reporter);
    std::vector<int32_t> due;
    for (int64_t i = 0; i < call.arguments[0].size(); ++i) due.push_back(read.integer(static_cast<int>(i)));
    Work work;
    for_due_layers(call.arguments, due.data(), attributes_, Layout::kArrays, [&](int index, const LayerArrays& arrays) {
      const Present of_A{read.number(weights[index]), read.number(weights[index] + 2)};
      const Present of_G{read.number(weights[index] + 1), read.number(weights[index] + 3)};
      if (of_A.rows != 0.0f && of_G.rows != 0.0f)
        add(index, Layer(arrays, attributes_.layers[index]), of_A, of_G, call, work);
    });
    if (work.pairs.empty()) return;
    launch_items(skfac_factor_damping, work.pairs, Lambda{lambda}, kThreads, call.stream);
    const Verdicts verdicts = inverses_->run(work.dense, work.low_rank, call);
    launch_items(skfac_write_damping, work.records, verdicts, 32, call.stream);
  }

 private:
  struct Work {
    std::vector<Pair> pairs;
    std::vector<DampedFactor> dense;
    std::vector<LowRankFactor> low_rank;
    std::vector<Record> records;
  };

  void add(int index, const Layer& layer, const Present& of_A, const Present& of_G, const Call& call,
           Work& work) const {
    const int first = first_[index], groups = static_cast<int>(layer.A.rows.groups);
    FactorNumbers* numbers = call.workspace<FactorNumbers>(numbers_) + first;
    for (int group = 0; group < groups; ++group) {
      FactorNumbers* of_group = numbers + 2 * group;
      const int factor = first + 2 * group;
      work.pairs.push_back({{part(layer.A, group, of_A, factor), part(layer.G, group, of_G, factor + 1)},
                            of_group,
                            attributes_.splits[index] != 0});
      const Pair& pair = work.pairs.back();
      add_solver(pair.parts[0], layer.A.solver.of(group), of_group[0], factor, work);
      add_solver(pair.parts[1], layer.G.solver.of(group), of_group[1], factor + 1, work);
    }
    const Part(&parts)[2] = work.pairs.back().parts;
    work.records.push_back({numbers,
                            {layer.A.damping, layer.G.damping},
                            layer.solver_ranks,
                            {parts[0].rank, parts[1].rank},
                            first,
                            groups});
  }

  Part part(const Factor& of, int64_t group, const Present& present, int factor) const {
    const int size = of.rows.size;
    if (!(present.rank >= 1.0f && present.rank <= static_cast<float>(size)))
      throw std::invalid_argument(of.name + " has " + std::to_string(size) + " rows and a rank of " +
                                  std::to_string(present.rank));
    const float scale = average_scale(present.rows);
    Part found{of.rows.of(group), size, static_cast<int>(present.rank), scale, inverses_->growth(factor)};
    if (found.low()) found.scale = std::sqrt(scale);
    return found;
  }

  static void add_solver(const Part& of, float* solver, const FactorNumbers& numbers, int factor, Work& work) {
    if (of.low())
      work.low_rank.push_back({of.rows, of.rank, of.size, &numbers.scale, &numbers.damping, solver, factor});
    else
      work.dense.push_back({of.rows, of.size, of.size, &numbers.scale, &numbers.damping, solver, factor});
  }

  SplitDampingAttributes attributes_;
  // Per layer: index of its first factor among all. A and G alternate, group by group.
  std::vector<int> first_;
  int numbers_;
  std::unique_ptr<GatheredNumbers> gathered_;
  std::unique_ptr<DampedInverses> inverses_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(SKFACRefresh, ms_kfac::SKFACRefreshKernel)
