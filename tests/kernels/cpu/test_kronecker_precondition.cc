// Compares U = scale G^-1 [dW db] A^-1 and its inner products with loops in float64: groups, biases, diagonal blocks,
// and layers of very different sizes. All threads together process some of these.

#include "gradients.h"
#include "step/kronecker_precondition.h"

namespace {

using check::Matrix;

// The block-diagonal matrix of one group.
Matrix dense(const std::vector<ms_kfac::DiagonalBlock>& blocks, int64_t group, int64_t dimension) {
  Matrix whole(dimension * dimension);
  int64_t offset = 0;
  for (const ms_kfac::DiagonalBlock& block : blocks) {
    for (int64_t i = 0; i < block.size; ++i)
      for (int64_t j = 0; j < block.size; ++j)
        whole[(offset + i) * dimension + offset + j] = block.values[(group * block.size + i) * block.size + j];
    offset += block.size;
  }
  return whole;
}

struct Case {
  int64_t groups;
  std::vector<int64_t> left, right;
  bool bias, scaled;
};

struct Layer {
  Layer(const Case& wanted, unsigned seed) : layer{} {
    int64_t rows = 0, width = 0;
    for (int64_t size : wanted.left) rows += size;
    for (int64_t size : wanted.right) width += size;
    gradients.attach(layer, wanted.groups, rows, width - (wanted.bias ? 1 : 0), wanted.bias, seed + 400);
    blocks.reserve(wanted.left.size() + wanted.right.size());
    const auto make = [&](const std::vector<int64_t>& sizes, std::vector<ms_kfac::DiagonalBlock>& side) {
      for (int64_t size : sizes) {
        blocks.push_back(check::normal(layer.groups * size * size, ++seed * 7));
        side.push_back({blocks.back().data(), size});
      }
    };
    make(wanted.left, layer.left);
    make(wanted.right, layer.right);
    scale = check::normal(layer.groups, seed + 300);
    if (wanted.scaled) layer.scale = scale.data();
  }

  void verify() const {
    const int64_t rows = layer.rows, width = layer.width();
    std::vector<Matrix> expected;
    for (int64_t group = 0; group < layer.groups; ++group) {
      const Matrix G = dense(layer.left, group, rows), A = dense(layer.right, group, width);
      const Matrix left = check::multiply(G, gradients.of(layer, group), rows, rows, width);
      expected.push_back(check::multiply(left, A, rows, width, width));
      for (double& value : expected.back()) value *= layer.scale ? layer.scale[group] : 1.0;
    }
    gradients.verify(layer, expected);
  }

  ms_kfac::KroneckerLayer layer;
  check::Gradients gradients;
  std::vector<std::vector<float>> blocks;
  std::vector<float> scale;
};

}  // namespace

int main(int argc, char** argv) {
  return check::run_cases<Layer>(argc, argv,
                                 std::vector<Case>{
                                     {1, {4}, {5}, false, false},
                                     {1, {4}, {6}, true, false},
                                     {1, {1}, {2}, true, true},
                                     {3, {2}, {9}, false, true},
                                     {5, {1}, {10}, true, false},
                                     {1, {64}, {144}, false, false},
                                     {1, {8, 8, 3}, {8, 8, 8, 5}, true, false},
                                     // The last block contains only the bias.
                                     {1, {7}, {4, 4, 1}, true, false},
                                     {1, {4, 4}, {6, 6}, false, false},
                                 });
}
