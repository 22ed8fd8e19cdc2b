// EKFAC: the stages of the second moments in an eigenbasis: the work of one block.
#pragma once

#include "eigenbasis_moments.h"

namespace ms_kfac {

// Epilogue of a tile: writes its elements or their squares, replacing or adding to the previous values.
struct TileResult {
  float* matrix;
  int rows, columns, first_row, first_column;
  float scale;
  bool squared, added;

  template <int kSide>
  __device__ void store(Tile<kSide>& tile) const {
    tile.each([&](int i, int j, float& element) {
      const int64_t row = first_row + i;
      const int column = first_column + j;
      if (row >= rows || column >= columns) return;
      float* to = matrix + row * columns + column;
      const float value = scale * element, power = squared ? value * value : value;
      *to = added ? __ldcg(to) + power : power;
    });
  }
};

// The work of one block. It stays in shared memory to save registers.
struct MomentTask {
  Turn turn;
  TilePlace place;
  int side;    // of the tile; 0: no work
  bool joins;  // whether s is added to instead of replaced
  // The stage uses `spans` or `projection`.
  Spans spans;
  Projection projection;
  TileResult result;
};

struct MomentMemory {
  MomentTask task;
  EitherTile<PatchMemory> tiles;
};

// Computes P or R.
__device__ inline void prepare_projection(const EigenbasisMoments& of, MomentTask& task) {
  const int64_t of_inputs = of.grids[0].tiles();
  const bool input = task.turn.index < of_inputs;
  const TileGrid& grid = of.grids[input ? 0 : 1];
  const int features = grid.columns;
  task.place = TilePlace::of(grid, input ? task.turn.index : task.turn.index - of_inputs);
  const TilePlace& place = task.place;
  task.side = grid.side;
  Projection& projection = task.projection;
  projection.vectors = input ? of.inputs : of.gradients;
  projection.matrix = (input ? of.Q_A : of.Q_G) + place.item * features * features;
  projection.columns = features;
  projection.group = static_cast<int>(place.item);
  projection.first = static_cast<int64_t>(task.turn.round) * of.at_once * of.locations;
  projection.count = of.samples_in(task.turn.round) * of.locations;
  projection.row = place.row;
  projection.column = place.column;
  float* matrix = of.results[input ? 0 : 1] + place.item * grid.rows * features;
  task.result = {matrix,       projection.count,           features,    place.row,
                 place.column, projection.vectors.scale(), of.single(), false};
}

// Computes W_n^T, or V_n = W_n Q_A.
__device__ inline void prepare_gradient(const EigenbasisMoments& of, MomentTask& task) {
  const int stage = task.turn.stage;
  const TileGrid& grid = of.grids[stage];
  task.place = TilePlace::of(grid, task.turn.index);
  const TilePlace& place = task.place;
  const int64_t sample = place.item % of.at_once, group = place.item / of.at_once;
  task.side = sample < of.samples_in(task.turn.round) ? grid.side : 0;
  Spans& spans = task.spans;
  spans.step_left = spans.step_right = 0;
  spans.count = 1;
  spans.first_row = place.row;
  spans.first_column = place.column;
  spans.group = static_cast<int>(group);
  if (stage == 0) {
    spans.left = of.inputs.rows;
    spans.right = of.gradients.rows;
    spans.first_left = spans.first_right = (static_cast<int64_t>(task.turn.round) * of.at_once + sample) * of.locations;
    spans.length = spans.rows = of.locations;
  } else {
    spans.left = matrix_rows(of.results[0], of.e);
    spans.right = matrix_rows(of.Q_A, of.d);
    spans.first_left = place.item * of.d;
    spans.first_right = group * of.d;
    spans.length = spans.rows = of.d;
  }
  task.result = {of.results[stage] + place.item * of.d * of.e, grid.rows, grid.columns, place.row, place.column,
                 stage == 0 ? of.gradients.scale() : 1.0f,     false,     false};
}

// Computes one part of s.
__device__ inline void prepare_last(const EigenbasisMoments& of, MomentTask& task) {
  task.place = TilePlace::of(of.last, task.turn.index / of.parts);
  const TilePlace& place = task.place;
  task.side = of.last.side;
  const int part = static_cast<int>(task.turn.index % of.parts), samples = of.samples_in(task.turn.round);
  const int first = of.first_span(part, samples);
  Spans& spans = task.spans;
  spans.right = matrix_rows(of.results[of.vectors_first ? 0 : 1], of.d);
  if (of.vectors_first) {
    spans.left = matrix_rows(of.results[1], of.e);
    spans.length = spans.step_left = spans.step_right = of.single() ? kSpan : of.locations;
    spans.first_left = spans.first_right = place.item * of.at_once * of.locations;
    spans.rows = samples * of.locations;
  } else {
    spans.left = matrix_rows(of.Q_G, of.e);
    spans.length = spans.step_right = of.e;
    spans.step_left = 0;
    spans.first_left = place.item * of.e;
    spans.first_right = place.item * of.at_once * of.e;
    spans.rows = samples * of.e;
  }
  spans.first_left += static_cast<int64_t>(first) * spans.step_left;
  spans.first_right += static_cast<int64_t>(first) * spans.step_right;
  spans.rows -= first * spans.length;
  spans.count = of.first_span(part + 1, samples) - first;
  spans.first_row = place.row;
  spans.first_column = place.column;
  if (of.parts == 1) {
    task.result = {
        of.sums + place.item * of.e * of.d, of.e, of.d, place.row, place.column, 1.0f, !of.single(), task.joins};
  } else {
    const int side = of.last.side;
    task.result = {of.partials + task.turn.index * side * side, side, side, 0, 0, 1.0f, !of.single(), false};
  }
}

template <int kSide>
__device__ void multiply_spans(MomentTask& task, TileMemory<kSide>& memory) {
  while (task.spans.count > 0) {
    const RowSums<kSide> operands(task.spans);
    Tile<kSide> tile;
    multiply_tile<kSide, Precision::kFloat32>(operands, 0, task.spans.present(), false, memory, tile);
    task.result.store(tile);
    __syncthreads();
    if (threadIdx.x == 0) {
      task.spans.advance();
      task.result.added = true;
    }
    __syncthreads();
  }
}

template <int kSide, typename Memory>
__device__ void multiply_patches(const EigenbasisMoments& of, const MomentTask& task, Memory& memory) {
  const PatchSums<kSide> operands(of.inputs, of.gradients, task.spans, memory.operands);
  Tile<kSide> tile;
  multiply_tile<kSide, Precision::kFloat32>(operands, 0, of.locations, false, memory.tile, tile);
  task.result.store(tile);
}

template <int kSide>
__device__ void project(const MomentTask& task, TileMemory<kSide>& memory) {
  Tile<kSide> tile;
  const int depth = task.projection.columns;
  if (task.projection.vectors.of_patches) {
    const PatchProjection<kSide> operands(task.projection);
    multiply_tile<kSide, Precision::kFloat32>(operands, 0, depth, false, memory, tile);
  } else {
    const RowProjection<kSide> operands(task.projection);
    multiply_tile<kSide, Precision::kFloat32>(operands, 0, depth, false, memory, tile);
  }
  task.result.store(tile);
}

template <int kSide, typename Memory>
__device__ void multiply(const EigenbasisMoments& of, MomentTask& task, Memory& memory) {
  if (task.turn.stage == 1 && of.vectors_first)
    project(task, memory.tile);
  else if (task.turn.stage == 0 && of.inputs.of_patches)
    multiply_patches<kSide>(of, task, memory);
  else
    multiply_spans(task, memory.tile);
}

// The last block of a tile sums its parts in a fixed order.
__device__ inline void add_parts(const EigenbasisMoments& of, const MomentTask& task) {
  const int64_t tile = task.turn.index / of.parts;
  if (count_block(of.arrivals + tile) + 1 < static_cast<unsigned>(of.parts)) return;
  const int side = of.last.side, samples = of.samples_in(task.turn.round);
  const float* partials = of.partials + tile * of.parts * side * side;
  float* matrix = of.sums + task.place.item * of.e * of.d;
  for (int index = threadIdx.x; index < side * side; index += kThreads) {
    const int64_t row = task.place.row + index / side;
    const int column = task.place.column + index % side;
    if (row >= of.e || column >= of.d) continue;
    float sum = 0.0f;
    // In a last round with fewer samples some parts are empty and wrote nothing.
    for (int part = 0; part < of.parts; ++part)
      if (of.first_span(part, samples) < of.first_span(part + 1, samples))
        sum += __ldcg(partials + static_cast<int64_t>(part) * side * side + index);
    float* to = matrix + row * of.d + column;
    *to = task.joins ? __ldcg(to) + sum : sum;
  }
  if (threadIdx.x == 0) of.arrivals[tile] = 0;
}

// Does a block's work. `block` is its place in the order of claims. The sums are added to the staged ones or replace
// them.
__device__ inline void add_moments(const EigenbasisMoments& of, bool joins, int64_t block, MomentMemory& memory) {
  MomentTask& task = memory.task;
  if (threadIdx.x == 0) {
    task.turn = of.rounds.at(block);
    task.joins = joins || task.turn.round > 0;
    if (task.turn.stage == 2)
      prepare_last(of, task);
    else if (of.vectors_first)
      prepare_projection(of, task);
    else
      prepare_gradient(of, task);
  }
  __syncthreads();
  of.rounds.wait_for(task.turn);
  if (task.side == 128)
    multiply<128>(of, task, memory.tiles.large);
  else if (task.side == 64)
    multiply<64>(of, task, memory.tiles.small);
  if (task.turn.stage == 2 && of.parts > 1) add_parts(of, task);
  of.rounds.finish(task.turn);
}

}  // namespace ms_kfac
