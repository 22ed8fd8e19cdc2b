// The geometry of a normalization layer or a scale, and its attributes of unit-wise statistics.
#pragma once

#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "aot_extra.h"

namespace ms_kfac {

// The numbers that share a mean and a variance: a channel of the batch, a group of channels of a sample, or all
// channels of a position. kNone: the layer does not normalize.
enum class SharedMoments { kNone, kBatch, kGroup, kPosition };

inline SharedMoments shared_moments(const std::string& name) {
  if (name == "none") return SharedMoments::kNone;
  if (name == "batch") return SharedMoments::kBatch;
  if (name == "group") return SharedMoments::kGroup;
  if (name == "position") return SharedMoments::kPosition;
  throw std::invalid_argument("moments must be none, batch, group or position, got " + name);
}

// All properties of a layer that do not depend on the batch.
struct NormalizationGeometry {
  SharedMoments moments = SharedMoments::kNone;
  // False: the inputs are divided by their root mean square.
  bool centered = true;
  float epsilon = 0.0f;
  // The layout (N, ..., C) instead of (N, C, ...).
  bool channels_last = false;
  // Of SharedMoments::kGroup.
  int64_t channel_groups = 1;
  // The shape of gamma.
  std::vector<int64_t> shape;
  // Whether the layer has beta.
  bool bias = false;
  // The loss is a mean over the batch.
  bool mean_reduction = false;
  float gradient_scale = 1.0f;

  int64_t channels() const { return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()); }
};

// A batch of a layer as (N, C, T) or (N, T, C).
struct NormalizationBatch {
  int64_t samples, locations, channels;

  int64_t size() const { return samples * locations * channels; }
};

// Throws unless the shapes of the input and the output gradient match each other and the layer.
inline NormalizationBatch batch_of(const NormalizationGeometry& geometry, const std::vector<int64_t>& x,
                                   const std::vector<int64_t>& dout) {
  const int64_t channels = geometry.channels(), samples = x.size() > 1 ? x[0] : 1;
  const int64_t size = std::accumulate(x.begin(), x.end(), int64_t{1}, std::multiplies<>());
  if (x != dout) throw std::invalid_argument("the output gradient must have the shape of the input");
  if (size <= 0 || size % (samples * channels) != 0)
    throw std::invalid_argument("an input of " + std::to_string(size) + " numbers does not fit " +
                                std::to_string(channels) + " channels");
  return {samples, size / (samples * channels), channels};
}

// Reads the attributes that Python takes from NormalizationOperators.native_geometry() and from the options of the
// statistics.
inline NormalizationGeometry read_normalization(AotExtra& extra) {
  NormalizationGeometry geometry;
  geometry.moments = shared_moments(extra.GetAttrStr("moments"));
  geometry.centered = extra.GetAttrBool("centered");
  geometry.epsilon = extra.GetAttrFloat("epsilon");
  geometry.channels_last = extra.GetAttrBool("channels_last");
  geometry.channel_groups = extra.GetAttrInt("channel_groups");
  geometry.shape = extra.GetAttrIntVec("shape");
  geometry.bias = extra.GetAttrBool("bias");
  geometry.mean_reduction = extra.GetAttrBool("mean_reduction");
  geometry.gradient_scale = extra.GetAttrFloat("gradient_scale");
  return geometry;
}

}  // namespace ms_kfac
