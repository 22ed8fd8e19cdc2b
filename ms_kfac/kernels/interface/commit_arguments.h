// The arguments of CommitStatistics: the staged batches and the averages of all layers.
//
// Attributes:
//
//   layers       names of the layers, one per line
//   arrays       number of arrays, one per layer
//   weights      number of weights, one per layer
//   weight_of    per array, the index of its weight among its layer's weights
//   powers       per array, its degree in the output gradient
//   diagonal     per array, 1 if the diagonals of its matrices show whether it is finite
//   averaged     per array, 0 if it has no average and only the staged array exists
//   samples      per weight, 1 if it counts samples: several calls of a layer in one pass have the same samples
//   roots        per layer, 1 if it averages roots of its block; floors and homogeneous belong to these layers
//   limit        epsilon / (1 - epsilon)
//   judge        handle of the judge, or 0
//
// Inputs:
//
//   due          int32 scalar
//   scales       float32 (2,): the factor of output gradients; the ratio of a delivered gradient to the sum of its
//                passes
//   measured     float32 (layers, 3): r^T dW s, r^T W s, |dW|
//   past         float32, one per weight
//   outcome      float32 (1 + layers,): number of refused batches; per layer, whether it has statistics. A layer that
//                loses its statistics with a refused batch keeps its 1: its inverses come from statistics
//   calls        float32 (layers,): number of calls of each layer per backward pass
//   per layer    its record and its weights, then for each array the staged array and its average
//
// Output: a float32 scalar without meaning. Other operators depend on it to run after this one.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "aot_extra.h"
#include "arguments.h"
#include "staged_batch.h"

namespace ms_kfac {

struct CommitAttributes {
  explicit CommitAttributes(AotExtra& extra)
      : arrays(extra.GetAttrIntVec("arrays")),
        weights(extra.GetAttrIntVec("weights")),
        weight_of(extra.GetAttrIntVec("weight_of")),
        powers(extra.GetAttrIntVec("powers")),
        diagonal(extra.GetAttrIntVec("diagonal")),
        averaged(extra.GetAttrIntVec("averaged")),
        samples(extra.GetAttrIntVec("samples")),
        roots(extra.GetAttrIntVec("roots")),
        homogeneous(extra.GetAttrIntVec("homogeneous")),
        floors(extra.GetAttrFloatVec("floors")),
        limit(extra.GetAttrFloat("limit")),
        judge(extra.GetAttrInt("judge")) {
    std::istringstream lines(extra.GetAttrStr("layers"));
    for (std::string line; std::getline(lines, line);) layers.push_back(line);
  }
  std::vector<std::string> layers;
  std::vector<int64_t> arrays, weights, weight_of, powers, diagonal, averaged, samples, roots, homogeneous;
  std::vector<float> floors;
  float limit;
  int64_t judge;
};

struct StagedArray {
  float* staged;
  float* average;  // null: only the staged array exists
  int64_t size;
  int64_t matrices, dimension;  // whose diagonals are checked; 0: all numbers are checked
  int weight, power;
};

struct StagedLayer {
  float* record;
  float* weights;
  float* past;
  float* calls;
  const int64_t* samples;  // per weight: whether it counts samples
  int weight_count;
  bool roots, homogeneous;
  float floor;
  std::vector<StagedArray> arrays;
};

constexpr int kMeasured = 3;

inline std::vector<StagedLayer> staged_layers(const Arguments& arguments, const CommitAttributes& attributes) {
  const auto require = [](bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
  };
  const int64_t count = static_cast<int64_t>(attributes.layers.size());
  require(arguments[1].size() == 2, "scales must be two numbers");
  require(arguments[2].size() == count * kMeasured, "measured must have three numbers for each layer");
  require(arguments[4].size() == count + 1, "outcome must have one number for each layer and one more");
  require(arguments[5].size() == count, "calls must have one number for each layer");
  std::vector<StagedLayer> layers;
  int next = 6;
  int64_t array = 0, past = 0;
  for (int64_t index = 0; index < count; ++index) {
    const int weights = static_cast<int>(attributes.weights[index]);
    const Array record = arguments[next++], weight = arguments[next++];
    require(record.size() == kStagedWeights + weights, "a record does not fit its layer's weights");
    require(weight.size() == weights, "the number of weights of a layer differs from the attributes");
    require(past + weights <= arguments[3].size(), "past must have one number for each weight");
    require(past + weights <= static_cast<int64_t>(attributes.samples.size()),
            "samples must have one number per weight");
    StagedLayer layer{record.floats(),
                      weight.floats(),
                      arguments[3].floats() + past,
                      arguments[5].floats() + index,
                      attributes.samples.data() + past,
                      weights,
                      attributes.roots[index] != 0,
                      attributes.homogeneous[index] != 0,
                      attributes.floors[index],
                      {}};
    past += weights;
    for (int64_t end = array + attributes.arrays[index]; array < end; ++array) {
      const Array staged = arguments[next++];
      const int owner = static_cast<int>(attributes.weight_of[array]);
      require(owner >= 0 && owner < weights, "weight_of must be the index of one of the layer's weights");
      const bool diagonal = attributes.diagonal[array] != 0;
      const int64_t dimension = diagonal ? staged.shape[staged.axes - 1] : 0;
      StagedArray found{staged.floats(),
                        nullptr,
                        staged.size(),
                        diagonal ? staged.size() / (dimension * dimension) : 0,
                        dimension,
                        owner,
                        static_cast<int>(attributes.powers[array])};
      if (attributes.averaged[array]) {
        const Array average = arguments[next++];
        // Where a layer averages roots, its traces have a second half: the shifts.
        const bool traces = layer.roots && static_cast<int64_t>(layer.arrays.size()) == 2;
        require(average.size() == staged.size() * (traces ? 2 : 1), "an average does not fit its staged array");
        found.average = average.floats();
      }
      layer.arrays.push_back(found);
    }
    layers.push_back(layer);
  }
  require(next == arguments.count() - 1, "the number of arrays differs from the attributes");
  return layers;
}

// The factor by which a commit keeps the past, d = min(1, limit / W). W is the weight of the past in commits and is
// updated. Without statistics the function returns 0 but still advances W. On several devices W must be equal on all
// ranks, including those that do not hold the sums.
MS_KFAC_HOST_DEVICE inline float keep_of_past(float limit, float weight, float& past) {
  const float kept = past > 0.0f ? (limit < past ? limit / past : 1.0f) : 0.0f;
  past = kept * past + 1.0f;
  return weight > 0.0f ? kept : 0.0f;
}

}  // namespace ms_kfac
