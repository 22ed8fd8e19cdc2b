// The layers' gradients and weights, as MeasureGradients finds them among its arguments.
//
// Attributes: layers, their number; biases, 1 where a layer has one; gradients, how many the step has; positions, which
// of them are the layers' dW and db, one layer after the other.
// Inputs: due (int32 scalar), all gradients of the step, then W and b of every layer (float32). Output: (layers, 3)
// float32.
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
      if (position < 0 || position >= gradients_) throw std::out_of_range("a position without a gradient");
  }

  int64_t layers() const { return layers_; }
  bool biased(int64_t layer) const { return biases_[layer] != 0; }

  // Of the parameters of all layers, weights and biases in turn.
  Array gradient(const Arguments& arguments, int parameter) const {
    return arguments[1 + static_cast<int>(positions_[parameter])];
  }
  Array value(const Arguments& arguments, int parameter) const {
    return arguments[1 + static_cast<int>(gradients_) + parameter];
  }

  // The output; refuses other arrays than the attributes tell of.
  Array output(const Arguments& arguments) const {
    const int count = 2 + static_cast<int>(gradients_) + static_cast<int>(positions_.size());
    if (arguments.count() != count || arguments[count - 1].size() != layers_ * kMeasuredNumbers)
      throw std::invalid_argument("not the arrays that the attributes tell of");
    if (arguments[0].size() != 1) throw std::invalid_argument("due must be one number");
    return arguments[count - 1];
  }

 private:
  int64_t layers_, gradients_;
  std::vector<int64_t> biases_, positions_;
};

}  // namespace ms_kfac
