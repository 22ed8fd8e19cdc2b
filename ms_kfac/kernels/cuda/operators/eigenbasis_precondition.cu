// EKFAC: divides the gradients of many layers by their second moments in the eigenbases of their factors.
//
// Inputs after the gradients, float32, per layer: Q_A, Q_G, the sums of s, the counts (3,) whose last divides the sums,
// S_A, S_G and the damping. Everything else: gradient_arguments.h.
//
// There are four products, each launched for all layers together. The epilogue of the second one divides its results.
// The inner products follow.

#include "../inverse/factored_tikhonov.h"
#include "../step/gradient_products.h"
#include "../tile/matrix_products.h"

namespace ms_kfac {
namespace {

struct Bases {
  float *Q_A, *Q_G;
};

// Divisors of a product's results: s + damping. Before the first second moments, s = S_G S_A'.
struct Moments {
  const float *sums, *count, *S_A, *S_G, *damping;
};

// A product whose epilogue divides its results.
struct DividedProduct : MatrixProduct {
  Moments moments;

  __device__ float finish(int index, int row, int column, float element, float) const {
    const int64_t of_row = static_cast<int64_t>(index) * rows + row;
    const float count = *moments.count;
    const float s = count != 0.0f ? moments.sums[of_row * columns + column] * average_scale(count)
                                  : moments.S_G[of_row] * moments.S_A[static_cast<int64_t>(index) * columns + column];
    return element / (s + *moments.damping);
  }
};

// The four products of each layer, batched over its groups.
struct Work {
  std::vector<MatrixProduct> into_A;    // X = [dW db] Q_A
  std::vector<DividedProduct> into_G;   // Y = (Q_G' X) / (s + damping)
  std::vector<MatrixProduct> out_of_G;  // X = Q_G Y
  std::vector<MatrixProduct> out_of_A;  // [U_W U_b] = X Q_A'

  void add(const LayerGradients& layer, const Bases& bases, const Moments& moments, float* first, float* second) {
    const int rows = static_cast<int>(layer.rows), width = static_cast<int>(layer.width());
    const MatrixView X{first, nullptr, width, 0, 0, rows}, Y{second, nullptr, width, 0, 0, rows};
    const MatrixView Q_A{bases.Q_A, nullptr, width, 0, 0, width}, Q_G{bases.Q_G, nullptr, rows, 0, 0, rows};
    const auto product = [&](const MatrixView& left, const MatrixView& right, const MatrixView& result, int depth) {
      return layer_product(layer, left, right, result, depth);
    };
    into_A.push_back(product(gradient_view(layer, 0, 0, rows), Q_A, X, width));
    into_G.push_back({product(Q_G, X, Y, rows), moments});
    out_of_G.push_back(product(Q_G, Y, X, rows));
    out_of_A.push_back(product(X, Q_A, update_view(layer, 0, rows), width));
  }
};

class EigenbasisPreconditionKernel {
 public:
  EigenbasisPreconditionKernel(AotExtra& extra, const Arguments& shapes)
      : attributes_(extra),
        precision_(precision_of_preconditioning(extra)),
        multiprocessors_(multiprocessors()),
        first_(extra, attributes_, shapes),
        second_(extra, attributes_, shapes),
        products_(extra, attributes_, shapes) {}

  void run(const Call& call) const {
    GradientArguments arguments(call.arguments, attributes_);
    GradientBuffer first = first_.of(call), second = second_.of(call);
    ProductList products = products_.of(call);
    Work work;
    for (size_t index = 0; index < arguments.layers(); ++index) {
      const int64_t groups = attributes_.groups[index];
      const auto square = [&](int64_t& size) {
        const Array array = arguments.next();
        expect(array.axes >= 2, "a basis must be a matrix");
        size = array.shape[array.axes - 1];
        expect(array.size() == groups * size * size, "not one basis for each group");
        return array.floats();
      };
      const auto of_size = [&](int64_t size) {
        const Array array = arguments.next();
        expect(array.size() == size, "an array does not fit its basis");
        return array.floats();
      };
      int64_t width, rows;
      Bases bases{};
      bases.Q_A = square(width);
      bases.Q_G = square(rows);
      Moments moments{};
      moments.sums = of_size(groups * rows * width);
      moments.count = of_size(3) + 2;
      moments.S_A = of_size(groups * width);
      moments.S_G = of_size(groups * rows);
      moments.damping = of_size(1);
      LayerGradients layer{};
      arguments.fill(index, rows, width, layer);
      work.add(layer, bases, moments, first.next(layer), second.next(layer));
      products.add(layer);
    }
    arguments.expect_all_read();
    launch_products(work.into_A, precision_, multiprocessors_, call.stream);
    launch_products<true, false>(work.into_G, precision_, multiprocessors_, call.stream);
    launch_products(work.out_of_G, precision_, multiprocessors_, call.stream);
    launch_products<false, true>(work.out_of_A, precision_, multiprocessors_, call.stream);
    products.launch(call.stream);
  }

 private:
  GradientAttributes attributes_;
  Precision precision_;
  int multiprocessors_;
  GradientWorkspace first_, second_;
  ProductWorkspace products_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(EigenbasisPrecondition, ms_kfac::EigenbasisPreconditionKernel)
