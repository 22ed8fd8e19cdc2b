#include "layer_batch.h"

#include <stdexcept>

#include "../threads/threads.h"
#include "second_moments.h"

namespace ms_kfac {
namespace {

int64_t product(const std::vector<int64_t>& shape, size_t first, size_t last) {
  int64_t size = 1;
  for (size_t axis = first; axis < last; ++axis) size *= shape[axis];
  return size;
}

}  // namespace

int64_t LayerSide::features() const {
  return (rows ? rows->features() : images.channels * window.taps()) + (bias ? 1 : 0);
}

LayerBatch::LayerBatch(const LayerGeometry& geometry, const FloatArray& x, const FloatArray& dout)
    : geometry_(geometry), x_(x), dout_(dout) {
  const size_t axes = x.shape.size();
  if (axes != dout.shape.size() || axes < 1 || (geometry.convolution && axes != 4))
    throw std::invalid_argument("input and output gradient must have the same number of axes, 4 for a convolution");
  samples_ = axes > 1 ? x.shape[0] : 1;
  if (!geometry.convolution) {
    if (axes > 2) locations_ = product(x.shape, 1, axes - 1);
    if (product(x.shape, 0, axes - 1) != product(dout.shape, 0, axes - 1))
      throw std::invalid_argument("input and output gradient differ in their leading axes");
    return;
  }
  for (int axis : {0, 1}) {
    if (geometry_.same_padding) geometry_.window.pad_to_same(axis, x.shape[axis + 2]);
    const int64_t size = geometry_.window.locations(axis, x.shape[axis + 2]);
    if (size != dout.shape[axis + 2] || dout.shape[0] != samples_)
      throw std::invalid_argument("the output gradient does not have the shape of the convolution's output");
    locations_ *= size;
  }
}

LayerSide LayerBatch::stacked(const FloatArray& array, float scale, float mean) const {
  LayerSide side;
  const Values values(array.data, array.type, scale);
  const size_t last = array.shape.size() - 1;
  if (geometry_.reduce && locations_ > 1)
    side.rows = std::make_unique<StackedRows>(values, samples_, locations_, array.shape[last], mean);
  else
    side.rows = std::make_unique<StackedRows>(values, product(array.shape, 0, last), 1, array.shape[last], 1.0f);
  return side;
}

Images LayerBatch::images(const FloatArray& array, float scale, int64_t group) const {
  const int64_t channels = array.shape[1] / geometry_.groups, height = array.shape[2], width = array.shape[3];
  return {
      Values(array.data, array.type, scale), array.shape[0], channels, height, width, array.shape[1] * height * width,
      group * channels * height * width};
}

LayerSide LayerBatch::inputs(int64_t group) const {
  const float mean = 1.0f / static_cast<float>(locations_);
  LayerSide side;
  if (!geometry_.convolution) {
    side = stacked(x_, 1.0f, mean);
  } else {
    side.images = images(x_, 1.0f, group);
    side.window = geometry_.window;
    if (geometry_.reduce) side.rows = std::make_unique<SummedPatches>(side.images, side.window, mean);
  }
  side.bias = geometry_.bias;
  return side;
}

LayerSide LayerBatch::gradients(int64_t group) const {
  const float scale = geometry_.gradient_scale * (geometry_.mean_reduction ? static_cast<float>(samples_) : 1.0f);
  if (!geometry_.convolution) return stacked(dout_, scale, 1.0f);
  LayerSide side;
  side.images = images(dout_, scale, group);
  if (geometry_.reduce) side.rows = std::make_unique<SummedPatches>(side.images, side.window, 1.0f);
  return side;
}

void LayerBatch::for_groups(const std::function<void(int64_t, int64_t)>& task) const {
  const int64_t all = threads();
  if (groups() >= all && groups() > 1) {
    parallel_for(groups(), [&](int64_t group) { task(group, 1); });
  } else {
    for (int64_t group = 0; group < groups(); ++group) task(group, all);
  }
}

void add_side_moment(const LayerSide& side, float* matrix, int64_t workers) {
  if (side.rows) {
    add_row_moment(*side.rows, side.bias, matrix, workers);
  } else {
    add_patch_moment(side.images, side.window, side.bias, matrix, workers);
  }
}

}  // namespace ms_kfac
