#include "layer_batch.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "lag_plan.h"

namespace ms_kfac {
namespace {

// Blocks per multiprocessor: enough to balance their load, few enough that summing their parts costs little.
constexpr int kBlocksEach = 4;
// The smallest depth of a part: each part writes and reads its tile once more.
constexpr int64_t kLeastDepth = 256;

int64_t product(const Array& array, int first, int last) {
  int64_t size = 1;
  for (int axis = first; axis < last; ++axis) size *= array.shape[axis];
  return size;
}

double work(const SymmetricSum& sum) {
  return static_cast<double>(sum.tiles()) * sum.side * sum.side * static_cast<double>(sum.depth);
}

}  // namespace

LayerBatch::LayerBatch(const LayerGeometry& geometry, const Array& x, const Array& dout)
    : geometry_(geometry), x_(x), dout_(dout) {
  const int axes = x.axes;
  if (axes != dout.axes || axes < 1 || (geometry.convolution && axes != 4))
    throw std::invalid_argument("input and output gradient don't have a layer's axes");
  samples_ = axes > 1 ? x.shape[0] : 1;
  if (!geometry.convolution) {
    if (axes > 2) locations_ = product(x, 1, axes - 1);
    if (product(x, 0, axes - 1) != product(dout, 0, axes - 1))
      throw std::invalid_argument("input and output gradient differ in their leading axes");
  } else {
    for (int axis : {0, 1}) {
      if (geometry_.same_padding) geometry_.window.pad_to_same(axis, x.shape[axis + 2]);
      const int64_t size = geometry_.window.locations(axis, x.shape[axis + 2]);
      if (size != dout.shape[axis + 2] || dout.shape[0] != samples_)
        throw std::invalid_argument("the output gradient is not of the convolution's output");
      locations_ *= size;
    }
  }
  if (samples_ * locations_ > kMostPositions)
    throw std::invalid_argument("a batch must have at most " + std::to_string(kMostPositions) + " locations");
}

LayerSide LayerBatch::side(const Array& array, const Window& window, bool bias, float scale, float factor) const {
  LayerSide side{};
  const Numbers numbers{array.data, number_type(array.type), scale};
  const int groups = static_cast<int>(geometry_.groups);
  int width;
  if (geometry_.convolution) {
    Patches& patches = side.patches;
    patches.numbers = numbers;
    patches.channels = static_cast<int>(array.shape[1]) / groups;
    patches.height = static_cast<int>(array.shape[2]);
    patches.width = static_cast<int>(array.shape[3]);
    patches.sample_stride = product(array, 1, 4);
    patches.group_stride = patches.sample_stride / groups;
    for (int axis : {0, 1}) {
      patches.kernel[axis] = static_cast<int>(window.kernel[axis]);
      patches.stride[axis] = static_cast<int>(window.stride[axis]);
      patches.dilation[axis] = static_cast<int>(window.dilation[axis]);
      patches.before[axis] = static_cast<int>(window.before[axis]);
      patches.locations[axis] = static_cast<int>(window.locations(axis, array.shape[axis + 2]));
    }
    patches.by_area = Divisor::of(patches.locations[0] * patches.locations[1]);
    patches.by_row = Divisor::of(patches.locations[1]);
    width = patches.features();
    patches.bias = bias && !geometry_.reduce;
    // Offsets of taps from the patch's corner have 16 bits. Indices of pixels within a sample have 32 bits.
    if (patches.dilation[0] * patches.kernel[0] >= (1 << 15) || patches.dilation[1] * patches.kernel[1] >= (1 << 15) ||
        patches.sample_stride >= (int64_t{1} << 31))
      throw std::invalid_argument("images or kernel are too large");
  } else {
    width = static_cast<int>(array.shape[array.axes - 1]);
  }
  side.of_patches = geometry_.convolution && !geometry_.reduce;
  side.rows = {numbers, width, bias, 0};
  if (geometry_.reduce && (geometry_.convolution || locations_ > 1)) {
    side.summed = {geometry_.convolution,        side.patches, numbers, groups, static_cast<int>(samples_),
                   static_cast<int>(locations_), width,        factor,  nullptr};
    side.rows.numbers = {nullptr, NumberType::kFloat32, 1.0f};
    side.rows.group_stride = samples_ * width;
  }
  SymmetricSum& sum = side.sum;
  sum.features = width + (bias ? 1 : 0);
  sum.side = sum.features > 64 ? 128 : 64;
  sum.groups = groups;
  sum.parts = 1;
  sum.depth = samples_ * counted_locations();
  return side;
}

LayerSide LayerBatch::inputs() const {
  return side(x_, geometry_.window, geometry_.bias, 1.0f, 1.0f / static_cast<float>(locations_));
}

LayerSide LayerBatch::gradients() const {
  const float scale = geometry_.gradient_scale * (geometry_.mean_reduction ? static_cast<float>(samples_) : 1.0f);
  return side(dout_, Window{}, false, scale, 1.0f);
}

int parts_of(double work, int64_t depth, double share) {
  return static_cast<int>(
      std::clamp<int64_t>(static_cast<int64_t>(work / share + 0.5), 1, std::max<int64_t>(depth / kLeastDepth, 1)));
}

void split(SymmetricSum& sum, int multiprocessors) {
  sum.parts =
      parts_of(work(sum) / static_cast<double>(sum.tiles()), sum.depth, work(sum) / (kBlocksEach * multiprocessors));
}

SidePlan plan_sides(LayerSide& inputs, LayerSide& gradients, LagProducts& lags, int multiprocessors) {
  LayerSide* sides[2] = {&inputs, &gradients};
  const double of_inputs = lags.used() ? work(lags) : work(inputs.sum);
  const double share = (of_inputs + work(gradients.sum)) / (kBlocksEach * multiprocessors);
  SidePlan plan{};
  for (int index : {0, 1}) {
    SymmetricSum& sum = sides[index]->sum;
    if (index == 0 && lags.used()) {
      sum.parts = 0;
      share_out(lags, share);
      plan.numbers = lags.partial_numbers();
      plan.counters = sum.tiles();
      continue;
    }
    sum.parts = parts_of(work(sum) / static_cast<double>(sum.tiles()), sum.depth, share);
    plan.vectors[index] = plan.numbers;
    plan.numbers += sides[index]->summed.count();
    plan.partials[index] = plan.numbers;
    plan.numbers += sum.partial_numbers();
    plan.counters += sum.tiles();
  }
  return plan;
}

void place_sides(LayerSide& inputs, LayerSide& gradients, LagProducts& lags, const SidePlan& plan, float* workspace,
                 unsigned* counters) {
  LayerSide* sides[2] = {&inputs, &gradients};
  for (int index : {0, 1}) {
    LayerSide& side = *sides[index];
    if (side.summed.count() > 0) {
      side.summed.vectors = workspace + plan.vectors[index];
      side.rows.numbers.data = side.summed.vectors;
    }
    side.sum.partials = workspace + plan.partials[index];
    side.sum.arrivals = counters;
    counters += side.sum.tiles();
  }
  lags.partials = inputs.sum.partials;
}

float* matrices_of(const Array& array, const LayerSide& side) {
  const int64_t features = side.sum.features, groups = side.sum.groups;
  if (array.size() != groups * features * features)
    throw std::invalid_argument("a sum has " + std::to_string(array.size()) + " numbers, expected " +
                                std::to_string(groups) + " x " + std::to_string(features) + "^2");
  return array.floats();
}

}  // namespace ms_kfac
