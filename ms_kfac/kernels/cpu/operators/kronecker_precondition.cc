// Preconditions the gradients of many layers: multiplies them by the inverses of their Kronecker-factored Fisher
// blocks.
//
// Attributes, one number per layer, in addition to those of gradient_arguments.h:
//
//   left_arrays     number of arrays that hold the diagonal blocks of G^-1
//   right_arrays    number of arrays that hold the diagonal blocks of A^-1
//   scales          1 if there is a scale
//
// Inputs after the gradients, float32, per layer: the arrays of G^-1, those of A^-1, and the scale. With groups an
// array holds one matrix per group. Without groups it holds one matrix or a stack of diagonal blocks.

#include "../step/kronecker_precondition.h"

#include "../../interface/gradient_arguments.h"
#include "../operator.h"

namespace {

struct KroneckerPreconditionAttributes : ms_kfac::GradientAttributes {
  explicit KroneckerPreconditionAttributes(AotExtra& extra)
      : GradientAttributes(extra),
        left_arrays(extra.GetAttrIntVec("left_arrays")),
        right_arrays(extra.GetAttrIntVec("right_arrays")),
        scales(extra.GetAttrIntVec("scales")) {}
  std::vector<int64_t> left_arrays, right_arrays, scales;
};

// Reads one side of a layer's inverse. Returns the sum of the block sizes.
int64_t read_blocks(ms_kfac::GradientArguments& arguments, int64_t arrays, int64_t groups,
                    std::vector<ms_kfac::DiagonalBlock>& blocks) {
  int64_t rows = 0;
  for (int64_t index = 0; index < arrays; ++index) {
    const ms_kfac::Array array = arguments.next();
    ms_kfac::expect(array.axes >= 2 && array.shape[array.axes - 1] == array.shape[array.axes - 2],
                    "inverses must be square");
    const int64_t size = array.shape[array.axes - 1];
    const int64_t matrices = array.size() / (size * size);
    ms_kfac::expect(groups == 1 || (matrices == groups && arrays == 1), "not one inverse for each group");
    for (int64_t block = 0; block < (groups == 1 ? matrices : 1); ++block) {
      blocks.push_back({array.floats() + block * size * size, size});
      rows += size;
    }
  }
  return rows;
}

}  // namespace

MS_KFAC_OPERATOR(KroneckerPrecondition) {
  ms_kfac::GradientArguments gradient_arguments(arguments, attributes);
  std::vector<ms_kfac::KroneckerLayer> layers;
  for (size_t index = 0; index < gradient_arguments.layers(); ++index) {
    ms_kfac::KroneckerLayer layer{};
    const int64_t groups = attributes.groups[index];
    const int64_t rows = read_blocks(gradient_arguments, attributes.left_arrays[index], groups, layer.left);
    const int64_t width = read_blocks(gradient_arguments, attributes.right_arrays[index], groups, layer.right);
    gradient_arguments.fill(index, rows, width, layer);
    if (attributes.scales[index]) {
      const ms_kfac::Array scale = gradient_arguments.next();
      ms_kfac::expect(scale.size() == groups, "not one scale for each group");
      layer.scale = scale.floats();
    }
    layers.push_back(std::move(layer));
  }
  gradient_arguments.expect_all_read();
  ms_kfac::precondition(layers);
}
