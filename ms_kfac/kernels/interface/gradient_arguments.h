// The attributes and arguments shared by all operators that precondition gradients.
//
// Attributes:
//
//   gradients    number of gradients
//   positions    indices of the layers' dW and db among the gradients, in the order of the layers
//   groups       number of groups, one per layer
//   biases       per layer, 1 if it has a bias
//
// Inputs: the gradients, then the operator's own inputs. Outputs: the updates in the order of positions, then the inner
// products of gradients and updates, one per update.
#pragma once

#include "aot_extra.h"
#include "arguments.h"
#include "layer_gradients.h"

namespace ms_kfac {

inline void expect(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

struct GradientAttributes {
  explicit GradientAttributes(AotExtra& extra)
      : groups(extra.GetAttrIntVec("groups")),
        biases(extra.GetAttrIntVec("biases")),
        positions(extra.GetAttrIntVec("positions")),
        gradients(static_cast<int>(extra.GetAttrInt("gradients"))) {}
  std::vector<int64_t> groups, biases, positions;
  int gradients;
};

// Reads the arguments layer by layer.
class GradientArguments {
 public:
  GradientArguments(const Arguments& arguments, const GradientAttributes& attributes)
      : arguments_(arguments),
        attributes_(attributes),
        outputs_(arguments.count() - static_cast<int>(attributes.positions.size()) - 1),
        next_(attributes.gradients),
        products_(arguments[arguments.count() - 1]) {
    expect(products_.size() == static_cast<int64_t>(attributes.positions.size()), "not one product for each update");
  }

  size_t layers() const { return attributes_.groups.size(); }

  // The next of the operator's own inputs.
  Array next() {
    expect(next_ < outputs_, "fewer inputs than the attributes declare");
    return arguments_[next_++];
  }

  // Fills in the next layer. Its weights, including the bias, are matrices (rows, width).
  void fill(size_t index, int64_t rows, int64_t width, LayerGradients& layer) {
    const int64_t groups = attributes_.groups[index];
    const bool bias = attributes_.biases[index] != 0;
    layer.groups = groups;
    layer.rows = rows;
    layer.columns = width - (bias ? 1 : 0);
    take(groups * rows * layer.columns, layer.weight_gradient, layer.weight_update, layer.weight_product);
    if (bias) take(groups * rows, layer.bias_gradient, layer.bias_update, layer.bias_product);
  }

  void expect_all_read() const { expect(next_ == outputs_, "more inputs than the attributes declare"); }

 private:
  void take(int64_t size, const float*& gradient, float*& update, float*& product) {
    expect(update_ < static_cast<int>(attributes_.positions.size()), "fewer positions than parameters");
    const Array input = arguments_[static_cast<int>(attributes_.positions[update_])];
    const Array output = arguments_[outputs_ + update_];
    expect(input.size() == size && output.size() == size, "a gradient does not fit its layer");
    gradient = input.floats();
    update = output.floats();
    product = products_.floats() + update_++;
  }

  const Arguments& arguments_;
  const GradientAttributes& attributes_;
  int outputs_, next_, update_ = 0;
  Array products_;
};

}  // namespace ms_kfac
