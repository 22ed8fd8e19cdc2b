// EKFAC.
#include "eigenbasis_moments.h"

#include <algorithm>
#include <stdexcept>

namespace ms_kfac {
namespace {

// Workspace between stages, in floats per multiprocessor: 32 tiles of 128 x 128. This is enough that blocks waiting for
// the last ones of a stage lose little time.
constexpr int64_t kRoom = 32 * 128 * 128;
// Blocks per multiprocessor that split the samples: enough to balance their load.
constexpr int kBlocksEach = 4;

int side_of(int64_t rows, int64_t columns) { return rows > 64 && columns > 64 ? 128 : 64; }

TileGrid grid_of(int64_t rows, int64_t columns, int64_t count, int multiprocessors) {
  TileGrid grid{static_cast<int>(rows), static_cast<int>(columns), side_of(rows, columns), count};
  // Use smaller tiles rather than leave multiprocessors idle.
  if (grid.tiles() < multiprocessors) grid.side = 64;
  return grid;
}

int64_t numbers_of(const TileGrid& grid) { return grid.count * grid.rows * grid.columns; }

float* matrices(const Array& array, int64_t groups, int64_t rows, int64_t columns, const char* what) {
  if (array.size() != groups * rows * columns)
    throw std::invalid_argument(std::string(what) + " " + std::to_string(array.size()) + " numbers, expected " +
                                std::to_string(groups) + " x " + std::to_string(rows) + " x " +
                                std::to_string(columns));
  return array.floats();
}

}  // namespace

EigenbasisMoments::EigenbasisMoments(const LayerBatch& batch, int multiprocessors)
    : inputs(LayerVectors::of(batch.inputs())),
      gradients(LayerVectors::of(batch.gradients())),
      Q_A(nullptr),
      Q_G(nullptr),
      sums(nullptr),
      d(inputs.features()),
      e(gradients.features()),
      groups(static_cast<int>(batch.groups())),
      samples(static_cast<int>(batch.samples())),
      locations(static_cast<int>(batch.locations())) {
  // R^T P and W, the per-sample products of the two orders, cost the same.
  const double T = locations, of_vectors = T * (double(d) * d + double(e) * e), of_gradient = double(d) * e * (d + e);
  vectors_first = single() || of_vectors < of_gradient;
  const int64_t of_sample = groups * (vectors_first ? int64_t{locations} * (d + e) : 2 * int64_t{d} * e);
  // With one location per sample all samples fit: the workspace is no larger than the batch itself.
  const int64_t fitting = single() ? samples : std::max<int64_t>(kRoom * multiprocessors / of_sample, 1);
  rounds.count = static_cast<int>((samples + fitting - 1) / fitting);
  at_once = (samples + rounds.count - 1) / rounds.count;
  rounds.count = (samples + at_once - 1) / at_once;
  const int64_t positions = int64_t{at_once} * locations;
  if (vectors_first) {
    grids[0] = grid_of(positions, d, groups, multiprocessors);
    grids[1] = grid_of(positions, e, groups, multiprocessors);
  } else {
    grids[0] = grid_of(d, e, int64_t{groups} * at_once, multiprocessors);
    grids[1] = grid_of(e, d, int64_t{groups} * at_once, multiprocessors);
  }
  last = {e, d, side_of(e, d), groups};
  parts = static_cast<int>(
      std::clamp<int64_t>((kBlocksEach * multiprocessors + last.tiles() / 2) / last.tiles(), 1, spans(at_once)));
  rounds.blocks[0] = vectors_first ? 0 : grids[0].tiles();
  rounds.blocks[1] = grids[1].tiles() + (vectors_first ? grids[0].tiles() : 0);
  rounds.blocks[2] = last.tiles() * parts;
  place(nullptr, nullptr);
}

int64_t EigenbasisMoments::numbers() const {
  const int64_t of_parts = parts > 1 ? last.tiles() * parts * last.side * last.side : 0;
  return numbers_of(grids[0]) + numbers_of(grids[1]) + of_parts;
}

void EigenbasisMoments::place(float* workspace, unsigned* counters) {
  results[0] = workspace;
  results[1] = workspace + numbers_of(grids[0]);
  partials = results[1] + numbers_of(grids[1]);
  rounds.finished = counters;
  arrivals = counters + 3;
}

void EigenbasisMoments::set(const Array& of_inputs, const Array& of_gradients, const Array& of_sums) {
  Q_A = matrices(of_inputs, groups, d, d, "the basis of inputs has");
  Q_G = matrices(of_gradients, groups, e, e, "the basis of gradients has");
  sums = matrices(of_sums, groups, e, d, "the second moments have");
}

}  // namespace ms_kfac
