// The staged batches and averages of all layers, as CommitStatistics finds them among its arguments.
//
// Attributes: layers, their names, one per line; arrays and weights, how many each layer has; weight_of, the layer's
// weight that an array belongs to; powers, how many factors of the output gradient an array is a product of; diagonal,
// 1 where the diagonals of its matrices show whether an array is finite; averaged, 0 where the staged array is all
// there is; roots, 1 for a layer that averages roots of its block, with floors and homogeneous; limit, epsilon / (1 -
// epsilon); judge, the handle of the judge or 0. Inputs: due (int32 scalar), scales (float32: what output gradients are
// multiplied with; what a delivered gradient is divided by the sum of its passes), measured (float32, (layers, 3): r^T
// dW s, r^T W s, |dW|), past (float32, one per weight), outcome (float32, 1 + layers: batches refused; whether each
// layer has statistics), then per layer its record and its weights, and per array the staged one and its average.
// Output: a float32 that stands for its having run.
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
        roots(extra.GetAttrIntVec("roots")),
        homogeneous(extra.GetAttrIntVec("homogeneous")),
        floors(extra.GetAttrFloatVec("floors")),
        limit(extra.GetAttrFloat("limit")),
        judge(extra.GetAttrInt("judge")) {
    std::istringstream lines(extra.GetAttrStr("layers"));
    for (std::string line; std::getline(lines, line);) layers.push_back(line);
  }
  std::vector<std::string> layers;
  std::vector<int64_t> arrays, weights, weight_of, powers, diagonal, averaged, roots, homogeneous;
  std::vector<float> floors;
  float limit;
  int64_t judge;
};

struct StagedArray {
  float* staged;
  float* average;  // null: the staged array is all there is
  int64_t size;
  int64_t matrices, dimension;  // of which the diagonals are looked at; 0: all numbers are
  int weight, power;
};

struct StagedLayer {
  float* record;
  float* weights;
  float* past;
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
  require(arguments[4].size() == count + 1, "outcome must have one number more than there are layers");
  std::vector<StagedLayer> layers;
  int next = 5;
  int64_t array = 0, past = 0;
  for (int64_t index = 0; index < count; ++index) {
    const int weights = static_cast<int>(attributes.weights[index]);
    const Array record = arguments[next++], weight = arguments[next++];
    require(record.size() == kStagedWeights + weights, "a record does not fit its layer's weights");
    require(weight.size() == weights, "a layer has other weights than its attributes say");
    require(past + weights <= arguments[3].size(), "past must have one number for each weight");
    StagedLayer layer{record.floats(),
                      weight.floats(),
                      arguments[3].floats() + past,
                      weights,
                      attributes.roots[index] != 0,
                      attributes.homogeneous[index] != 0,
                      attributes.floors[index],
                      {}};
    past += weights;
    for (int64_t end = array + attributes.arrays[index]; array < end; ++array) {
      const Array staged = arguments[next++];
      const int owner = static_cast<int>(attributes.weight_of[array]);
      require(owner >= 0 && owner < weights, "an array without a weight");
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
        // The traces of a layer that averages roots have a second part.
        const bool traces = layer.roots && static_cast<int64_t>(layer.arrays.size()) == 2;
        require(average.size() == staged.size() * (traces ? 2 : 1), "an average does not fit its staged array");
        found.average = average.floats();
      }
      layer.arrays.push_back(found);
    }
    layers.push_back(layer);
  }
  require(next == arguments.count() - 1, "not the arrays that the attributes tell of");
  return layers;
}

// How much of the past a commit keeps, d = min(1, limit / W) with W the weight of the past in commits; updates W.
// Without statistics nothing is kept, but W counts on: on many devices it is the same for all, whoever holds the sums.
MS_KFAC_HOST_DEVICE inline float keep_of_past(float limit, float weight, float& past) {
  const float kept = past > 0.0f ? (limit < past ? limit / past : 1.0f) : 0.0f;
  past = kept * past + 1.0f;
  return weight > 0.0f ? kept : 0.0f;
}

}  // namespace ms_kfac
