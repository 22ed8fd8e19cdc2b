// EKFAC: preconditions the gradients of many layers: divides them by their second moments in the eigenbases of their
// factors.
//
// Inputs after the gradients, float32, per layer: Q_A, Q_G, the sums of s, the counts (3,), S_A, S_G and the damping.
// The last count divides the sums of s. Everything else: gradient_arguments.h.

#include "../step/eigenbasis_precondition.h"

#include "../../interface/gradient_arguments.h"
#include "../operator.h"

namespace {

using EigenbasisPreconditionAttributes = ms_kfac::GradientAttributes;

}  // namespace

MS_KFAC_OPERATOR(EigenbasisPrecondition) {
  ms_kfac::GradientArguments gradient_arguments(arguments, attributes);
  std::vector<ms_kfac::EigenbasisLayer> layers;
  for (size_t index = 0; index < gradient_arguments.layers(); ++index) {
    ms_kfac::EigenbasisLayer layer{};
    const int64_t groups = attributes.groups[index];
    const auto square = [&](int64_t& size) {
      const ms_kfac::Array array = gradient_arguments.next();
      ms_kfac::expect(array.axes >= 2, "a basis must be a matrix");
      size = array.shape[array.axes - 1];
      ms_kfac::expect(array.size() == groups * size * size, "not one basis for each group");
      return array.floats();
    };
    const auto of_size = [&](int64_t size) {
      const ms_kfac::Array array = gradient_arguments.next();
      ms_kfac::expect(array.size() == size, "an array does not fit its basis");
      return array.floats();
    };
    int64_t width, rows;
    layer.Q_A = square(width);
    layer.Q_G = square(rows);
    layer.moments = of_size(groups * rows * width);
    layer.count = of_size(3)[2];
    layer.S_A = of_size(groups * width);
    layer.S_G = of_size(groups * rows);
    layer.damping = of_size(1)[0];
    gradient_arguments.fill(index, rows, width, layer);
    layers.push_back(layer);
  }
  gradient_arguments.expect_all_read();
  ms_kfac::precondition(layers);
}
