#include <stdexcept>
#include <utility>

#include "../../interface/factored_tikhonov.h"
#include "../inverse/call_outcomes.h"
#include "../scheduling/item_batch.h"
#include "../tile/matrix_products.h"
#include "eigendecomposition.h"
#include "jacobi.h"

namespace ms_kfac {
namespace {

// F Q of a factor.
struct FactorProduct : MatrixProduct {
  static constexpr bool kMayRound = false;
};

struct Item {
  EigenFactor of;
  JacobiMatrix jacobi;
  int64_t of_blocks;

  int64_t blocks() const { return of_blocks; }
  // After the last round the memory of the rotations holds, per column of Q, the reciprocal of its length and its
  // eigenvalue, and for each place in their order the number of its column.
  __device__ float* reciprocals() const { return jacobi.rotations; }
  __device__ float* eigenvalues() const { return jacobi.rotations + of.size; }
  __device__ unsigned* columns() const { return reinterpret_cast<unsigned*>(jacobi.rotations + 2 * of.size); }
};

using Batch = ItemBatch<Item, Outcomes>;

// Writes F with its padding: one block per row.
__global__ void __launch_bounds__(kThreads) eigendecomposition_load(const __grid_constant__ Batch batch) {
  unsigned row;
  const Item& item = batch.items[batch.find(row)];
  const JacobiMatrix& to = item.jacobi;
  const int64_t i = row;
  if (i == 0)
    for (int sweep = threadIdx.x; sweep < kSweeps; sweep += kThreads) to.rotated_in_sweep[sweep] = 0;
  const float scale = average_scale(*item.of.count), shift = *item.of.seen == 0.0f ? 1.0f : 0.0f;
  bool finite = true;
  for (int64_t j = threadIdx.x; j < to.stride(); j += kThreads) {
    float value = 0.0f;
    if (i < to.size && j < to.size) value = scale * item.of.factor[i * to.size + j] + (i == j ? shift : 0.0f);
    finite = finite && isfinite(value);
    to.matrix[i * to.stride() + j] = value;
  }
  if (!finite) batch.common.fail(item.of.index, kNotFinite);
}

// Measures the eigenvectors q, one thread each. Rotations keep their lengths up to rounding. The eigenvalue is q^T F q
// over q^T q, with F q where F was. The diagonal that the rounds leave is less exact: it grows by many numbers that are
// lost next to it.
__global__ void __launch_bounds__(kThreads) eigendecomposition_measure(const __grid_constant__ Batch batch) {
  unsigned block;
  const Item& item = batch.items[batch.find(block)];
  if (!batch.common.verdicts.written(item.of.index)) {
    const Outcome outcome = batch.common.of(item.of.index);
    if (block == 0 && threadIdx.x == 0 && outcome != kFine) batch.common.of_factors[item.of.index] = outcome;
    return;
  }
  const int size = item.of.size, j = static_cast<int>(block) * kThreads + threadIdx.x;
  if (j >= size) return;
  float square = 0.0f, product = 0.0f;
  for (int i = 0; i < size; ++i) {
    const int64_t place = static_cast<int64_t>(i) * size + j;
    const float component = item.of.vectors[place];
    square = fmaf(component, component, square);
    product = fmaf(component, item.jacobi.matrix[place], product);
  }
  item.reciprocals()[j] = 1.0f / sqrtf(square);
  item.eigenvalues()[j] = *item.of.seen == 0.0f ? 1.0f : fmaxf(average_scale(*item.of.count) * product / square, 0.0f);
}

// Sorts the eigenvalues, one thread each.
__global__ void __launch_bounds__(kThreads) eigendecomposition_sort(const __grid_constant__ Batch batch) {
  unsigned block;
  const Item& item = batch.items[batch.find(block)];
  const int size = item.of.size, j = static_cast<int>(block) * kThreads + threadIdx.x;
  if (j >= size || !batch.common.verdicts.written(item.of.index)) return;
  const float* values = item.eigenvalues();
  const float value = values[j];
  int before = 0;
  for (int i = 0; i < size; ++i)
    if (values[i] < value || (values[i] == value && i < j)) ++before;
  item.of.values[before] = value;
  item.columns()[before] = j;
}

// Writes Q in the order of the eigenvalues to the memory of F: one block per row.
__global__ void __launch_bounds__(kThreads) eigendecomposition_order(const __grid_constant__ Batch batch) {
  unsigned row;
  const Item& item = batch.items[batch.find(row)];
  if (!batch.common.verdicts.written(item.of.index)) return;
  const int64_t first = static_cast<int64_t>(row) * item.of.size;
  for (int j = threadIdx.x; j < item.of.size; j += kThreads) {
    const unsigned column = item.columns()[j];
    item.jacobi.matrix[first + j] = item.reciprocals()[column] * item.of.vectors[first + column];
  }
}

// Copies it to Q.
__global__ void __launch_bounds__(kThreads) eigendecomposition_write(const __grid_constant__ Batch batch) {
  unsigned row;
  const Item& item = batch.items[batch.find(row)];
  if (!batch.common.verdicts.written(item.of.index)) return;
  const int64_t first = static_cast<int64_t>(row) * item.of.size;
  for (int j = threadIdx.x; j < item.of.size; j += kThreads) item.of.vectors[first + j] = item.jacobi.matrix[first + j];
}

}  // namespace

struct Eigendecompositions::State {
  State(AotExtra& extra, std::vector<int> of_sizes, std::vector<std::string> names)
      : sizes(std::move(of_sizes)), outcomes(std::move(names)) {
    int64_t numbers = 0, pairs = 0;
    for (int size : sizes) {
      const int64_t of_factor = JacobiMatrix::panels_of(size) / 2;
      first_number.push_back(numbers);
      first_pair.push_back(pairs);
      numbers += of_factor * of_factor * kPairNumbers;
      pairs += of_factor;
    }
    matrices = add_workspace(extra, numbers * sizeof(float));
    rotations = add_workspace(extra, pairs * kPairNumbers * sizeof(float));
    flags = add_workspace(extra, (pairs + kSweeps * sizes.size()) * sizeof(unsigned));
    of_sweeps = pairs;
  }

  JacobiMatrix matrix(const EigenFactor& of, const Call& call) const {
    unsigned* of_pairs = call.workspace<unsigned>(flags);
    return {call.workspace<float>(matrices) + first_number[of.index],
            of.vectors,
            call.workspace<float>(rotations) + first_pair[of.index] * kPairNumbers,
            of_pairs + first_pair[of.index],
            of_pairs + of_sweeps + kSweeps * of.index,
            of.size,
            of.index};
  }

  std::vector<int> sizes;
  std::vector<int64_t> first_number, first_pair;
  int matrices, rotations, flags;
  int64_t of_sweeps;  // where the flags of the sweeps begin
  int multiprocessors = ms_kfac::multiprocessors();
  CallOutcomes outcomes;
};

Eigendecompositions::Eigendecompositions(AotExtra& extra, std::vector<int> sizes, std::vector<std::string> names)
    : state_(std::make_unique<State>(extra, std::move(sizes), std::move(names))) {}

Eigendecompositions::~Eigendecompositions() = default;

void Eigendecompositions::take_failures(int64_t reporter) const { state_->outcomes.failures().take(reporter); }

Verdicts Eigendecompositions::run(const std::vector<EigenFactor>& factors, const Call& call) const {
  const Outcomes outcomes = state_->outcomes.next_call();
  std::vector<Item> items;
  std::vector<FactorProduct> products;
  for (const EigenFactor& of : factors) {
    if (of.size != state_->sizes.at(of.index))
      throw std::invalid_argument("a factor has " + std::to_string(of.size) + " rows, expected " +
                                  std::to_string(state_->sizes[of.index]));
    items.push_back({of, state_->matrix(of, call), 0});
    const auto view = [&](const float* values) {
      return MatrixView{const_cast<float*>(values), nullptr, of.size, 0, 0, of.size};
    };
    FactorProduct product{};
    product.left = view(of.factor);
    product.right = view(of.vectors);
    product.result = view(items.back().jacobi.matrix);
    product.rows = product.columns = product.depth = of.size;
    product.count = 1;
    products.push_back(product);
  }
  const auto launch = [&](void (*kernel)(Batch), const auto& blocks) {
    for (Item& item : items) item.of_blocks = blocks(item);
    launch_items(kernel, items, outcomes, kThreads, call.stream);
  };
  const auto rows = [](const Item& item) { return item.of.size; };
  launch(eigendecomposition_load, [](const Item& item) { return item.jacobi.stride(); });
  for (int step = 0;; ++step) {
    std::vector<JacobiRound> rounds;
    for (const Item& item : items) {
      const int of_sweep = item.jacobi.panels() - 1;
      if (step < kSweeps * of_sweep) rounds.push_back({item.jacobi, step / of_sweep, step % of_sweep});
    }
    if (rounds.empty()) break;
    find_rotations(rounds, outcomes.verdicts, call.stream);
    apply_rotations(rounds, outcomes.verdicts, call.stream);
  }
  const auto columns = [](const Item& item) { return (item.of.size + kThreads - 1) / kThreads; };
  launch_products(products, Precision::kFloat32, state_->multiprocessors, call.stream);
  launch(eigendecomposition_measure, columns);
  launch(eigendecomposition_sort, columns);
  launch(eigendecomposition_order, rows);
  launch(eigendecomposition_write, rows);
  return outcomes.verdicts;
}

}  // namespace ms_kfac
