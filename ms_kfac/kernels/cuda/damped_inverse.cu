#include <algorithm>
#include <stdexcept>
#include <utility>

#include "block_sum.h"
#include "counters.h"
#include "damped_inverse.h"
#include "inverse_failures.h"
#include "item_batch.h"
#include "sweep.h"
#include "tile.h"

namespace ms_kfac {
namespace {

struct Item {
  const float* factor;
  const float* scale;
  const float* damping;
  float* inverse;
  float* tiles;
  int64_t stride;
  int size, index;
  float growth;

  // One a tile.
  int64_t blocks() const { return tiles_of(panels_of(size)); }
};

struct Outcomes {
  Verdicts verdicts;
  unsigned* words;  // those of the verdicts
  int* of_factors;
};

using Batch = ItemBatch<Item, Outcomes>;

// Raises the word of a factor, and that of the call where nothing may be written.
__device__ void fail(const Outcomes& outcomes, const Item& item, Outcome outcome) {
  const unsigned value = 4 * outcomes.verdicts.call + outcome;
  atomicMax(outcomes.words + item.index, value);
  if (outcome >= kNotFinite) atomicMax(outcomes.words + outcomes.verdicts.count, value);
}

// Of the scaled factor, the same for all threads of the block.
__device__ double trace_of(const Item& item) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < item.size; i += kThreads) sum += item.factor[i * item.stride + i];
  return *item.scale * block_sum<kThreads>(sum);
}

// What is added to the diagonal, the same for all threads. Where a factor has failed before it grows, and is not below
// what float32 resolves beside the trace, where it would change nothing; a trace of zero leaves nothing to grow
// towards.
__device__ float present_damping(const Item& item) {
  if (item.growth == 1.0f) return *item.damping;
  const double trace = trace_of(item), grown = static_cast<double>(item.growth) * *item.damping;
  const double least = 1e-8 * item.growth * trace;
  const double damping = grown >= least ? grown : least;
  return damping == 0.0 ? 1.0f : static_cast<float>(damping);
}

// A lower tile, from the lower triangle, and the identity beyond the factor's size.
__global__ void __launch_bounds__(kThreads) load_tiles(const __grid_constant__ Batch batch) {
  unsigned block;
  const Item& item = batch.items[batch.find(block)];
  const TriangleIndex at(static_cast<int>(block));
  float* tile = item.tiles + static_cast<int64_t>(block) * kTileNumbers;
  const bool diagonal = at.row == at.column;
  const float scale = *item.scale, damping = diagonal ? present_damping(item) : 0.0f;
  bool finite = true;
  for (int place = threadIdx.x; place < kTileNumbers; place += kThreads) {
    const int i = at.row * kPanel + place / kPanel, j = at.column * kPanel + place % kPanel;
    const int row = max(i, j), column = min(i, j);
    float value = 0.0f;
    if (row < item.size) {
      value = scale * item.factor[static_cast<int64_t>(row) * item.stride + column];
      finite = finite && isfinite(value);
      if (row == column) value += damping;
    } else if (row == column) {
      value = 1.0f;
    }
    tile[place] = value;
  }
  if (threadIdx.x == 0 && diagonal && !(isfinite(scale) && isfinite(damping)))
    fail(batch.common, item, kDampingNotFinite);
  else if (!finite)
    fail(batch.common, item, kNotFinite);
}

// Minus a lower tile and its transpose, unless the factor or the call has failed.
__global__ void __launch_bounds__(kThreads) write_inverses(const __grid_constant__ Batch batch) {
  unsigned block;
  const Item& item = batch.items[batch.find(block)];
  const Verdicts& verdicts = batch.common.verdicts;
  if (!verdicts.written(item.index)) {
    const unsigned failed = verdicts.words[item.index];
    if (block > 0 || failed <= 4 * verdicts.call) return;
    int outcome = static_cast<int>(failed - 4 * verdicts.call);
    if (outcome == kIndefinite && !(present_damping(item) <= trace_of(item))) outcome = kHopeless;
    if (threadIdx.x == 0) batch.common.of_factors[item.index] = outcome;
    return;
  }
  __shared__ float transposed[kPanel][kPanel + 1];
  const TriangleIndex at(static_cast<int>(block));
  const float* tile = item.tiles + static_cast<int64_t>(block) * kTileNumbers;
  const int64_t first_row = at.row * kPanel, first_column = at.column * kPanel, size = item.size;
  for (int place = threadIdx.x; place < kTileNumbers; place += kThreads) {
    const int i = place / kPanel, j = place % kPanel;
    const float value = -tile[place];
    transposed[j][i] = value;
    if (first_row + i < size && first_column + j < size)
      item.inverse[(first_row + i) * size + first_column + j] = value;
  }
  if (at.row == at.column) return;
  __syncthreads();
  for (int place = threadIdx.x; place < kTileNumbers; place += kThreads) {
    const int i = place / kPanel, j = place % kPanel;
    if (first_row + j < size) item.inverse[(first_column + i) * size + first_row + j] = transposed[i][j];
  }
}

}  // namespace

struct DampedInverses::State {
  State(AotExtra& extra, std::vector<int> of_sizes, std::vector<std::string> names)
      : sizes(std::move(of_sizes)), failures(std::move(names)), words(static_cast<int>(sizes.size()) + 1) {
    int64_t tiles = 0, panels = 0;
    for (int size : sizes) {
      first_tile.push_back(tiles);
      first_panel.push_back(panels);
      tiles += tiles_of(panels_of(size));
      panels += panels_of(size);
    }
    tile_workspace = add_workspace(extra, tiles * kTileNumbers * sizeof(float));
    strip_workspace = add_workspace(extra, panels * kTileNumbers * sizeof(float));
    pivot_workspace = add_workspace(extra, sizes.size() * sizeof(Pivot));
  }

  SweptMatrix matrix(int index, const Call& call) const {
    return {call.workspace<float>(tile_workspace) + first_tile[index] * kTileNumbers,
            call.workspace<float>(strip_workspace) + first_panel[index] * kTileNumbers,
            call.workspace<Pivot>(pivot_workspace) + index, words.device() + index, panels_of(sizes[index])};
  }

  std::vector<int> sizes;
  std::vector<int64_t> first_tile, first_panel;
  int tile_workspace, strip_workspace, pivot_workspace;
  InverseFailures failures;
  CounterRange words;
  // Counts calls, so that words needn't be reset.
  unsigned call = 0;
};

DampedInverses::DampedInverses(AotExtra& extra, std::vector<int> sizes, std::vector<std::string> names)
    : state_(std::make_unique<State>(extra, std::move(sizes), std::move(names))) {}

DampedInverses::~DampedInverses() = default;

void DampedInverses::raise_failures() const { state_->failures.take(); }

Verdicts DampedInverses::run(const std::vector<DampedFactor>& factors, const Call& call) const {
  State& state = *state_;
  const Outcomes outcomes{{state.words.device(), static_cast<int>(state.sizes.size()), ++state.call},
                          state.words.device(),
                          state.failures.device()};
  std::vector<Item> items;
  std::vector<SweptMatrix> matrices;
  for (const DampedFactor& factor : factors) {
    if (factor.size != state.sizes.at(factor.index))
      throw std::invalid_argument("a factor of " + std::to_string(factor.size) + " rows, created for " +
                                  std::to_string(state.sizes[factor.index]));
    matrices.push_back(state.matrix(factor.index, call));
    items.push_back({factor.factor, factor.scale, factor.damping, factor.inverse, matrices.back().tiles, factor.stride,
                     factor.size, factor.index, state.failures.growth(factor.index)});
  }
  launch_items(load_tiles, items, outcomes, kThreads, call.stream);
  sweep(std::move(matrices), false, 4 * outcomes.verdicts.call + kIndefinite, call.stream);
  launch_items(write_inverses, items, outcomes, kThreads, call.stream);
  return outcomes.verdicts;
}

}  // namespace ms_kfac
