// The arguments shared by all operators that refresh inverses, many layers in one call.
//
// Inputs:
//
//   due          int32, one number or one per layer; 0 skips the layer
//   damping      float32 scalar
//   per layer    its arrays, in the order of refresh_layouts.h
//
// Output: a float32 scalar without meaning. Other operators depend on it to run after this one.
//
// An operator writes its inverses first and everything else last. So an error leaves everything but the inverses
// unchanged.
#pragma once

#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "aot_extra.h"
#include "arguments.h"
#include "refresh_layouts.h"

namespace ms_kfac {

// Attributes "layers": the names of the layers, one per line; "reporter": whom to tell of inverses that can't be
// computed. Without a reporter they are errors of the operator.
struct RefreshAttributes {
  std::vector<std::string> layers;
  int64_t reporter;

  explicit RefreshAttributes(AotExtra& extra) : reporter(extra.HasAttr("reporter") ? extra.GetAttrInt("reporter") : 0) {
    std::istringstream lines(extra.GetAttrStr("layers"));
    for (std::string line; std::getline(lines, line);) layers.push_back(line);
  }
};

// Attribute "splits", one number per layer: whether traces split the damping between its two factors.
struct SplitDampingAttributes : RefreshAttributes {
  std::vector<int64_t> splits;

  explicit SplitDampingAttributes(AotExtra& extra) : RefreshAttributes(extra), splits(extra.GetAttrIntVec("splits")) {
    if (splits.size() != layers.size()) throw std::invalid_argument("splits must have one number per layer");
  }
};

// Square matrices of one size, one per group.
struct Matrices {
  float* data;
  int64_t groups;
  int size;

  float* of(int64_t group) const { return data + group * size * size; }
};

// The arrays of one layer. Each accessor throws if the array's size differs from the requested one.
class LayerArrays {
 public:
  LayerArrays(const Arguments& arguments, int first, std::string layer)
      : arguments_(arguments), first_(first), layer_(std::move(layer)) {}

  // An array of `count` numbers.
  float* floats(int index, int64_t count) const {
    const Array array = arguments_[first_ + index];
    if (array.size() != count) refuse(index, std::to_string(count) + " numbers");
    return array.floats();
  }

  // One matrix or a batch of matrices.
  Matrices matrices(int index) const {
    const Array array = arguments_[first_ + index];
    const int64_t* end = array.shape + array.axes;
    const bool square = (array.axes == 2 || array.axes == 3) && end[-1] == end[-2] && array.size() > 0 &&
                        end[-1] <= std::numeric_limits<int>::max();
    if (!square) refuse(index, "the shape of a square matrix, or of one per group");
    return {array.floats(), array.axes == 3 ? array.shape[0] : 1, static_cast<int>(end[-1])};
  }
  Matrices matrices(int index, int64_t groups) const {
    const Matrices found = matrices(index);
    if (found.groups != groups) refuse(index, std::to_string(groups) + " groups");
    return found;
  }
  // Matrices with the groups and the size of `others`.
  Matrices like(const Matrices& others, int index) const {
    const Matrices found = matrices(index, others.groups);
    if (found.size != others.size) refuse(index, "matrices of " + std::to_string(others.size) + " rows");
    return found;
  }

 private:
  [[noreturn]] void refuse(int index, const std::string& wanted) const {
    const Array array = arguments_[first_ + index];
    std::string shape;
    for (int axis = 0; axis < array.axes; ++axis) shape += (axis ? ", " : "") + std::to_string(array.shape[axis]);
    throw std::invalid_argument(layer_ + ": array " + std::to_string(index) + " must have " + wanted + ", got shape (" +
                                shape + ")");
  }

  const Arguments& arguments_;
  int first_;
  std::string layer_;
};

// Throws unless every layer has `arrays` arrays.
inline void expect_arrays(const Arguments& arguments, const RefreshAttributes& attributes, int arrays) {
  const int layers = static_cast<int>(attributes.layers.size());
  if (layers * arrays != arguments.count() - 3)
    throw std::invalid_argument("expected " + std::to_string(arrays) + " arrays for each of " + std::to_string(layers) +
                                " layers, got " + std::to_string(arguments.count() - 3));
  const Array due = arguments[0];
  if (due.size() != 1 && due.size() != layers)
    throw std::invalid_argument("due must have one number, or one for each of " + std::to_string(layers) + " layers");
}

// Calls visit(index of the layer, its arrays) for every layer that is due. `due` points to host memory. Each layer has
// `arrays` arrays.
template <typename Visit>
void for_due_layers(const Arguments& arguments, const int32_t* due, const RefreshAttributes& attributes, int arrays,
                    Visit visit) {
  expect_arrays(arguments, attributes, arrays);
  const bool shared = arguments[0].size() == 1;
  for (int layer = 0; layer < static_cast<int>(attributes.layers.size()); ++layer)
    if (due[shared ? 0 : layer] != 0)
      visit(layer, LayerArrays(arguments, 2 + layer * arrays, attributes.layers[layer]));
}

}  // namespace ms_kfac
