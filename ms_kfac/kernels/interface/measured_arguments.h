// The arguments of MeasureGradients: gradients and weights of the layers.
//
// Attributes:
//
//   layers       number of layers
//   biases       per layer, 1 if it has a bias
//   gradients    number of gradients of the step
//   positions    indices of the layers' dW and db among the gradients, in the order of the layers
//
// Inputs: due (int32 scalar), all gradients of the step, then W and b of every layer (float32). Output: float32
// (layers, 3).
#pragma once

#include <stdexcept>
#include <vector>

#include "aot_extra.h"
#include "arguments.h"

namespace ms_kfac {

constexpr int kMeasuredNumbers = 3;

class MeasuredArguments {
 public:
  explicit MeasuredArguments(AotExtra& extra)
      : layers_(extra.GetAttrInt("layers")),
        gradients_(extra.GetAttrInt("gradients")),
        biases_(extra.GetAttrIntVec("biases")),
        positions_(extra.GetAttrIntVec("positions")) {
    int64_t parameters = 0;
    for (int64_t bias : biases_) parameters += bias != 0 ? 2 : 1;
    if (static_cast<int64_t>(biases_.size()) != layers_ || static_cast<int64_t>(positions_.size()) != parameters)
      throw std::invalid_argument("biases and positions must be those of the layers");
    for (int64_t position : positions_)
      if (position < 0 || position >= gradients_) throw std::out_of_range("positions must be indices of gradients");
  }

  int64_t layers() const { return layers_; }
  bool biased(int64_t layer) const { return biases_[layer] != 0; }

  // `parameter` is an index into all layers' parameters: weight and bias of the first layer, and so on.
  Array gradient(const Arguments& arguments, int parameter) const {
    return arguments[1 + static_cast<int>(positions_[parameter])];
  }
  Array value(const Arguments& arguments, int parameter) const {
    return arguments[1 + static_cast<int>(gradients_) + parameter];
  }

  // The output. Throws if the arrays do not match the attributes.
  Array output(const Arguments& arguments) const {
    const int count = 2 + static_cast<int>(gradients_) + static_cast<int>(positions_.size());
    if (arguments.count() != count || arguments[count - 1].size() != layers_ * kMeasuredNumbers)
      throw std::invalid_argument("the number of arrays differs from the attributes");
    if (arguments[0].size() != 1) throw std::invalid_argument("due must be one number");
    return arguments[count - 1];
  }

 private:
  int64_t layers_, gradients_;
  std::vector<int64_t> biases_, positions_;
};

}  // namespace ms_kfac
