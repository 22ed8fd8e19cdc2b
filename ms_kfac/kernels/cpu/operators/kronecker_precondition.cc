// Multiplies the gradients of many layers by the inverses of their Kronecker-factored Fisher blocks.
//
// Attributes, one number a layer: groups; biases, whether there is a bias; left_arrays and right_arrays, how many
// arrays hold the diagonal blocks of G^-1 and A^-1; scales, whether there is a scale. Beside these gradients, the
// number of gradients, and positions, which of them are the layers' dW and db, one layer after the other. Inputs,
// float32: gradients; then for every layer the arrays of G^-1, those of A^-1, and the scale. An array is one matrix a
// group, or one matrix or a stack of diagonal blocks without groups. Outputs: the updates in the order of positions;
// inner products of gradients and updates, as many.

#include "../operator.h"
#include "../precondition.h"

namespace {

struct KroneckerPreconditionAttributes {
  explicit KroneckerPreconditionAttributes(AotExtra& extra)
      : groups(extra.GetAttrIntVec("groups")),
        biases(extra.GetAttrIntVec("biases")),
        left_arrays(extra.GetAttrIntVec("left_arrays")),
        right_arrays(extra.GetAttrIntVec("right_arrays")),
        scales(extra.GetAttrIntVec("scales")),
        positions(extra.GetAttrIntVec("positions")),
        gradients(static_cast<int>(extra.GetAttrInt("gradients"))) {}
  std::vector<int64_t> groups, biases, left_arrays, right_arrays, scales, positions;
  int gradients;
};

void expect(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

// Reads `arrays` arguments from `position` on, which it moves on. Returns the sum of the blocks' sizes.
int64_t read_blocks(const ms_kfac::Arguments& arguments, int64_t arrays, int64_t groups, int& position,
                    std::vector<ms_kfac::DiagonalBlock>& blocks) {
  int64_t rows = 0;
  for (int64_t index = 0; index < arrays; ++index) {
    const ms_kfac::Array array = arguments[position++];
    expect(array.axes >= 2 && array.shape[array.axes - 1] == array.shape[array.axes - 2], "inverses must be square");
    const int64_t size = array.shape[array.axes - 1];
    const int64_t matrices = array.size() / (size * size);
    expect(groups == 1 || (matrices == groups && arrays == 1), "not one inverse for each group");
    for (int64_t block = 0; block < (groups == 1 ? matrices : 1); ++block) {
      blocks.push_back({array.floats() + block * size * size, size});
      rows += size;
    }
  }
  return rows;
}

}  // namespace

MS_KFAC_OPERATOR(KroneckerPrecondition) {
  const auto updates = static_cast<int>(attributes.positions.size());
  const int outputs = arguments.count() - updates - 1;
  const ms_kfac::Array products = arguments[arguments.count() - 1];
  expect(products.size() == updates, "not one inner product for each update");
  int update = 0, inverse = attributes.gradients;
  std::vector<ms_kfac::KroneckerLayer> layers;
  for (size_t index = 0; index < attributes.groups.size(); ++index) {
    ms_kfac::KroneckerLayer layer{};
    layer.groups = attributes.groups[index];
    layer.rows = read_blocks(arguments, attributes.left_arrays[index], layer.groups, inverse, layer.left);
    const int64_t bias = attributes.biases[index] ? 1 : 0;
    layer.columns = read_blocks(arguments, attributes.right_arrays[index], layer.groups, inverse, layer.right) - bias;
    if (attributes.scales[index]) layer.scale = arguments[inverse++].floats();
    // The next gradient and its update, each of `size` numbers.
    const auto take = [&](int64_t size, const float*& from, float*& to, float*& product) {
      const ms_kfac::Array gradient = arguments[static_cast<int>(attributes.positions[update])];
      const ms_kfac::Array result = arguments[outputs + update];
      expect(gradient.size() == size && result.size() == size, "a gradient does not fit its inverses");
      from = gradient.floats();
      to = result.floats();
      product = products.floats() + update++;
    };
    const int64_t rows = layer.groups * layer.rows;
    take(rows * layer.columns, layer.weight_gradient, layer.weight_update, layer.weight_product);
    if (bias) take(rows, layer.bias_gradient, layer.bias_update, layer.bias_product);
    layers.push_back(std::move(layer));
  }
  expect(inverse == outputs, "not the inputs that the attributes tell of");
  ms_kfac::precondition(layers);
}
