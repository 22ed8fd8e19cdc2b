// Multiplies the gradients of many layers by the inverses of their Kronecker-factored Fisher blocks.
//
// Attributes in addition to those of gradient_arguments.h, one number per layer: left_arrays and right_arrays, the
// number of arrays that hold the diagonal blocks of G^-1 and A^-1; scales, whether there is a scale. Inputs after the
// gradients, float32, per layer: the arrays of G^-1, those of A^-1, and the scale. An array holds one matrix per group.
// Without groups it holds one matrix or a stack of diagonal blocks.
//
// The products from the right of all layers come first, then those from the left, then the inner products. Each of the
// three takes one launch, or a few for many layers.

#include "../step/gradient_products.h"
#include "../tile/matrix_products.h"

namespace ms_kfac {
namespace {

// Matrices of equal size: one per group, or consecutive diagonal blocks.
struct SquareMatrices {
  float* values;
  int size, count;
};

struct Side {
  std::vector<SquareMatrices> arrays;
  int64_t rows = 0;
};

Side read_side(GradientArguments& arguments, int64_t arrays, int64_t groups) {
  Side side;
  for (int64_t index = 0; index < arrays; ++index) {
    const Array array = arguments.next();
    expect(array.axes >= 2 && array.shape[array.axes - 1] == array.shape[array.axes - 2], "inverses must be square");
    const int64_t size = array.shape[array.axes - 1], count = array.size() / (size * size);
    expect(groups == 1 || (count == groups && arrays == 1), "not one inverse for each group");
    side.arrays.push_back({array.floats(), static_cast<int>(size), static_cast<int>(count)});
    side.rows += groups == 1 ? count * size : size;
  }
  return side;
}

class KroneckerPreconditionKernel {
 public:
  KroneckerPreconditionKernel(AotExtra& extra, const Arguments& shapes)
      : attributes_(extra),
        left_arrays_(extra.GetAttrIntVec("left_arrays")),
        right_arrays_(extra.GetAttrIntVec("right_arrays")),
        scales_(extra.GetAttrIntVec("scales")),
        precision_(precision_of_preconditioning(extra)),
        multiprocessors_(multiprocessors()),
        between_(extra, attributes_, shapes),
        products_(extra, attributes_, shapes) {}

  void run(const Call& call) const {
    GradientArguments arguments(call.arguments, attributes_);
    std::vector<MatrixProduct> from_right, from_left;
    GradientBuffer between = between_.of(call);
    ProductList products = products_.of(call);
    for (size_t index = 0; index < arguments.layers(); ++index) {
      const int64_t groups = attributes_.groups[index];
      const Side left = read_side(arguments, left_arrays_[index], groups);
      const Side right = read_side(arguments, right_arrays_[index], groups);
      LayerGradients layer{};
      arguments.fill(index, left.rows, right.rows, layer);
      const float* scale = nullptr;
      if (scales_[index]) {
        const Array array = arguments.next();
        expect(array.size() == groups, "not one scale for each group");
        scale = array.floats();
      }
      float* X = between.next(layer);
      multiply_right(layer, right, X, from_right);
      multiply_left(layer, left, scale, X, from_left);
      products.add(layer);
    }
    arguments.expect_all_read();
    launch_products(from_right, precision_, multiprocessors_, call.stream);
    launch_products(from_left, precision_, multiprocessors_, call.stream);
    products.launch(call.stream);
  }

 private:
  // X = [dW db] A^-1.
  static void multiply_right(const LayerGradients& layer, const Side& side, float* X,
                             std::vector<MatrixProduct>& products) {
    const int rows = static_cast<int>(layer.rows), width = static_cast<int>(layer.width());
    int offset = 0;
    for (const SquareMatrices& of : side.arrays) {
      // Groups are stacked by rows, blocks by columns.
      const int next_row = layer.groups > 1 ? rows : 0, next_column = layer.groups > 1 ? 0 : of.size;
      MatrixProduct product{};
      product.left = gradient_view(layer, offset, next_column, next_row);
      product.right = {of.values, nullptr, of.size, 0, 0, of.size};
      product.result = {X, nullptr, width, offset, next_column, next_row};
      product.rows = rows;
      product.columns = product.depth = of.size;
      product.count = of.count;
      products.push_back(product);
      offset += of.count * of.size;
    }
  }

  // [U_W U_b] = scale G^-1 X.
  static void multiply_left(const LayerGradients& layer, const Side& side, const float* scale, float* X,
                            std::vector<MatrixProduct>& products) {
    const int width = static_cast<int>(layer.width());
    int64_t offset = 0;
    for (const SquareMatrices& of : side.arrays) {
      MatrixProduct product{};
      product.left = {of.values, nullptr, of.size, 0, 0, of.size};
      product.right = {X + offset * width, nullptr, width, 0, 0, of.size};
      product.result = update_view(layer, offset, of.size);
      product.rows = product.depth = of.size;
      product.columns = width;
      product.count = of.count;
      product.scale = scale;
      product.scale_step = layer.groups > 1 ? 1 : 0;
      products.push_back(product);
      offset += static_cast<int64_t>(of.count) * of.size;
    }
  }

  GradientAttributes attributes_;
  std::vector<int64_t> left_arrays_, right_arrays_, scales_;
  Precision precision_;
  int multiprocessors_;
  GradientWorkspace between_;
  ProductWorkspace products_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(KroneckerPrecondition, ms_kfac::KroneckerPreconditionKernel)
