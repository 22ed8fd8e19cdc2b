#include <algorithm>
#include <stdexcept>
#include <utility>

#include "../scheduling/item_batch.h"
#include "../tile/block_sum.h"
#include "../tile/tile.h"
#include "call_outcomes.h"
#include "damped_inverse.h"
#include "sweep.h"

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

  // One block per tile.
  int64_t blocks() const { return tiles_of(panels_of(size)); }
};

using Batch = ItemBatch<Item, Outcomes>;

// The trace of the scaled factor, returned in all threads of the block.
__device__ double trace_of(const Item& item) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < item.size; i += kThreads) sum += item.factor[i * item.stride + i];
  return *item.scale * block_sum<kThreads>(sum);
}

// The damping that is added to the diagonal, returned in all threads of the block.
__device__ float present_damping(const Item& item) {
  return item.growth == 1.0f ? *item.damping : grown_damping(*item.damping, item.growth, trace_of(item));
}

// Loads a lower tile from the factor's lower triangle, padded with the identity beyond the factor's size.
__global__ void __launch_bounds__(kThreads) damped_inverse_load_tiles(const __grid_constant__ Batch batch) {
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
      value = item.factor[static_cast<int64_t>(row) * item.stride + column];
      finite = finite && isfinite(value);
      value *= scale;
      if (row == column) value += damping;
    } else if (row == column) {
      value = 1.0f;
    }
    tile[place] = value;
  }
  if (threadIdx.x == 0 && diagonal && !(isfinite(scale) && isfinite(damping)))
    batch.common.fail(item.index, kDampingNotFinite);
  if (!finite) batch.common.fail(item.index, kNotFinite);
}

// Writes the negated lower tile and its transpose, unless the factor or the call has failed.
__global__ void __launch_bounds__(kThreads) damped_inverse_write(const __grid_constant__ Batch batch) {
  unsigned block;
  const Item& item = batch.items[batch.find(block)];
  const Outcomes& outcomes = batch.common;
  if (!outcomes.verdicts.written(item.index)) {
    Outcome outcome = outcomes.of(item.index);
    if (block > 0 || outcome == kFine) return;
    if (outcome == kIndefinite && !(present_damping(item) <= trace_of(item))) outcome = kHopeless;
    if (threadIdx.x == 0) outcomes.of_factors[item.index] = outcome;
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
      : sizes(std::move(of_sizes)), outcomes(std::move(names)) {
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

  // The matrix of a factor, with the size declared at creation or a smaller one.
  SweptMatrix matrix(int index, int size, const Call& call) const {
    return {call.workspace<float>(tile_workspace) + first_tile[index] * kTileNumbers,
            call.workspace<float>(strip_workspace) + first_panel[index] * kTileNumbers,
            call.workspace<Pivot>(pivot_workspace) + index, outcomes.word(index), panels_of(size)};
  }

  std::vector<int> sizes;
  std::vector<int64_t> first_tile, first_panel;
  int tile_workspace, strip_workspace, pivot_workspace;
  CallOutcomes outcomes;
};

DampedInverses::DampedInverses(AotExtra& extra, std::vector<int> sizes, std::vector<std::string> names)
    : state_(std::make_unique<State>(extra, std::move(sizes), std::move(names))) {}

DampedInverses::~DampedInverses() = default;

void DampedInverses::take_failures(int64_t reporter) const { state_->outcomes.failures().take(reporter); }

float DampedInverses::growth(int index) const { return state_->outcomes.failures().growth(index); }

Verdicts DampedInverses::run(const std::vector<DampedFactor>& factors, const std::vector<LowRankFactor>& low_rank,
                             const Call& call) const {
  State& state = *state_;
  const Outcomes outcomes = state.outcomes.next_call();
  std::vector<Item> items;
  std::vector<SweptMatrix> matrices, small;
  for (const DampedFactor& of : factors) {
    if (of.size != state.sizes.at(of.index))
      throw std::invalid_argument("a factor has " + std::to_string(of.size) + " rows, expected " +
                                  std::to_string(state.sizes[of.index]));
    matrices.push_back(state.matrix(of.index, of.size, call));
    items.push_back({of.factor, of.scale, of.damping, of.inverse, matrices.back().tiles, of.stride, of.size, of.index,
                     growth(of.index)});
  }
  std::vector<LowRankItem> low_rank_items;
  for (const LowRankFactor& of : low_rank) {
    small.push_back(state.matrix(of.index, of.rank, call));
    low_rank_items.push_back({of, small.back().tiles});
  }
  // All factors are loaded before any inverse is written.
  launch_items(damped_inverse_load_tiles, items, outcomes, kThreads, call.stream);
  load_small(low_rank_items, outcomes, call.stream);
  sweep(std::move(matrices), false, outcomes.value(kIndefinite), call.stream);
  sweep(std::move(small), true, outcomes.value(kIndefinite), call.stream);
  launch_items(damped_inverse_write, items, outcomes, kThreads, call.stream);
  solve_rows(low_rank_items, outcomes, call.stream);
  return outcomes.verdicts;
}

}  // namespace ms_kfac
