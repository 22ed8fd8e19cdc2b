#include "diagonals.h"

#include <stdexcept>
#include <string>

namespace ms_kfac {
namespace {

// Above this number of terms a whole block computes one element.
constexpr int64_t kTermsOfWarp = 1024;

Diagonal diagonal_of(const LayerSide& side, int multiprocessors) {
  Diagonal diagonal{};
  Patches& patches = diagonal.patches;
  if (side.of_patches) {
    patches = side.patches;
    diagonal.squares = {patches.numbers,
                        1,
                        side.sum.depth / (patches.locations[0] * patches.locations[1]),
                        patches.sample_stride,
                        1,
                        1,
                        0,
                        nullptr};
  } else {
    // Rows are treated as images of one pixel.
    patches.channels = side.rows.width;
    patches.bias = side.rows.bias;
    for (int* ones : {patches.kernel, patches.stride, patches.dilation, patches.locations}) ones[0] = ones[1] = 1;
    patches.by_area = patches.by_row = Divisor::of(1);
    patches.height = patches.width = 1;
    diagonal.squares = {side.rows.numbers, side.sum.groups, side.sum.depth, side.rows.width, 1, 1, 0, nullptr};
  }
  diagonal.squares.share_out(multiprocessors, true);
  diagonal.groups = side.sum.groups;
  diagonal.depth = side.sum.depth;
  patches.sample_stride = diagonal.squares.places();
  patches.group_stride = patches.sample_stride / side.sum.groups;
  diagonal.together = diagonal.terms() > kTermsOfWarp;
  return diagonal;
}

float* diagonals_of(const Array& array, const Diagonal& diagonal) {
  if (array.size() != diagonal.count())
    throw std::invalid_argument("a diagonal has " + std::to_string(array.size()) + " numbers, expected " +
                                std::to_string(diagonal.count()));
  return array.floats();
}

}  // namespace

BatchDiagonals::BatchDiagonals(const LayerSide& of_inputs, const LayerSide& of_gradients, int multiprocessors)
    : inputs(diagonal_of(of_inputs, multiprocessors)), gradients(diagonal_of(of_gradients, multiprocessors)) {}

void BatchDiagonals::place(float* workspace) {
  inputs.squares.sums = workspace;
  gradients.squares.sums = workspace + inputs.squares.numbers_of_sums();
}

void BatchDiagonals::set(const Array& of_inputs, const Array& of_gradients) {
  inputs.diagonals = diagonals_of(of_inputs, inputs);
  gradients.diagonals = diagonals_of(of_gradients, gradients);
}

}  // namespace ms_kfac
