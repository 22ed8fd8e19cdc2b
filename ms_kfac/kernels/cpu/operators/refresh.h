// What the operators share that refresh the inverses of many layers in one call.
//
// Inputs: due (int32, one number or one a layer; 0 leaves the layer alone), damping (float32 scalar), then the arrays
// of the first layer, those of the second and so on. Output: a float32 that stands for their having run.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../operator.h"

namespace ms_kfac {

// Attribute "layers": the layers' names, a line each.
struct RefreshAttributes {
  std::vector<std::string> layers;

  explicit RefreshAttributes(AotExtra& extra) {
    std::istringstream lines(extra.GetAttrStr("layers"));
    for (std::string line; std::getline(lines, line);) layers.push_back(line);
  }
};

// The arrays of one layer.
class LayerArrays {
 public:
  LayerArrays(const Arguments& arguments, int first) : arguments_(arguments), first_(first) {}
  Array operator[](int index) const { return arguments_[first_ + index]; }
  float number(int index) const { return (*this)[index].floats()[0]; }

 private:
  const Arguments& arguments_;
  int first_;
};

// Calls visit(layer's index, its arrays) for every layer that is due.
template <typename Visit>
void for_due_layers(const Arguments& arguments, const RefreshAttributes& attributes, Visit visit) {
  const int layers = static_cast<int>(attributes.layers.size());
  const int arrays = (arguments.count() - 3) / layers;
  if (layers * arrays != arguments.count() - 3)
    throw std::invalid_argument("every layer must have the same number of arrays");
  const Array due = arguments[0];
  const bool shared = due.size() == 1;
  if (!shared && due.size() != layers)
    throw std::invalid_argument("due must have one number, or one for each of " + std::to_string(layers) + " layers");
  for (int layer = 0; layer < layers; ++layer)
    if (due.integers()[shared ? 0 : layer] != 0) visit(layer, LayerArrays(arguments, 2 + layer * arrays));
}

// Of a batch of square matrices, or of one: how many, and their size.
inline int64_t batch_of(const Array& matrices) { return matrices.axes == 3 ? matrices.shape[0] : 1; }
inline int size_of(const Array& matrices) { return static_cast<int>(matrices.shape[matrices.axes - 1]); }

}  // namespace ms_kfac
