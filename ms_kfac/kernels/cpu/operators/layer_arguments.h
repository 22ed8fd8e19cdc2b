// Reads a layer's batch from the arguments of a statistics operator.
#pragma once

#include <string>

#include "../operator.h"
#include "../statistics/layer_batch.h"

namespace ms_kfac {

inline FloatArray float_array(const Array& array) {
  return {array.data, float_type(array.type), std::vector<int64_t>(array.shape, array.shape + array.axes)};
}

// The float32 matrices of all groups. Throws unless each is (features, features).
inline float* matrices_of(const Array& array, int64_t groups, int64_t features) {
  if (array.size() != groups * features * features)
    throw std::invalid_argument("a sum has " + std::to_string(array.size()) + " numbers, expected " +
                                std::to_string(groups) + " x " + std::to_string(features) + "^2");
  return array.floats();
}

}  // namespace ms_kfac
