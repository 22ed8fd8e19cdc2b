// SKFAC: multiplies the gradients of many layers by inverses that are dense, or rows of Woodbury's identity.
//
// Inputs after the gradients: skfac_solvers.h. Everything else: gradient_arguments.h.
//
// There are four products, each launched for all layers together. The ranks are in device memory, so a block looks up
// what its product needs. All products are in float32: (I - Z'Z) X is a small difference if X is in the span of Z, as
// a batch's gradient is, and TF32 would leave little of it.

#include "../../interface/skfac_solvers.h"
#include "../step/gradient_products.h"
#include "../tile/matrix_products.h"

namespace ms_kfac {
namespace {

// One side of a layer.
struct Solver : SolverArrays {
  // Z's rows, 0 for a dense inverse.
  __device__ int low_rank() const {
    const int R = static_cast<int>(*rank);
    return R < size ? R : 0;
  }
  __device__ bool dense() const { return static_cast<int>(*rank) >= size; }
};

// P = X Z' from the right, Z X from the left. Empty if the inverse is dense.
struct Projection : MatrixProduct {
  static constexpr bool kMayRound = false;

  Solver solver;
  bool from_right;

  __device__ void limit() { (from_right ? columns : rows) = solver.low_rank(); }
};

// (X - P Z) / D from the right, (X - Z' P) / D from the left. If the inverse is dense, its product with X.
struct Complement : MatrixProduct {
  static constexpr bool kMayRound = false;

  Solver solver;
  MatrixView X;
  bool from_right;

  __device__ void limit() {
    if (solver.dense())
      (from_right ? left : right) = X;
    else
      depth = solver.low_rank();
  }

  __device__ float finish(int index, int row, int column, float element, float) const {
    if (depth == solver.size) return element;
    int next_row;
    const float* of_X =
        X.at(static_cast<int64_t>(index) * X.row_step + row, X.column + index * X.column_step + column, next_row);
    return (*of_X - element) / solver.damping[index];
  }
};

struct Work {
  std::vector<Projection> into_A;    // P = [dW db] Z_A'
  std::vector<Complement> out_of_A;  // X = ([dW db] - P Z_A) / D_A
  std::vector<Projection> into_G;    // P = Z_G X
  std::vector<Complement> out_of_G;  // [U_W U_b] = (X - Z_G' P) / D_G

  void add(const LayerGradients& layer, const Solver& A, const Solver& G, float* first, float* second) {
    const int rows = static_cast<int>(layer.rows), width = static_cast<int>(layer.width());
    const MatrixView P{first, nullptr, width, 0, 0, rows}, X{second, nullptr, width, 0, 0, rows};
    const MatrixView of_A{A.matrices, nullptr, width, 0, 0, width}, of_G{G.matrices, nullptr, rows, 0, 0, rows};
    const MatrixView gradient = gradient_view(layer, 0, 0, rows);
    const auto product = [&](const MatrixView& left, const MatrixView& right, const MatrixView& result, int depth) {
      return layer_product(layer, left, right, result, depth);
    };
    into_A.push_back({product(gradient, of_A, P, width), A, true});
    out_of_A.push_back({product(P, of_A, X, width), A, gradient, true});
    into_G.push_back({product(of_G, X, P, rows), G, false});
    out_of_G.push_back({product(of_G, P, update_view(layer, 0, rows), rows), G, X, false});
  }
};

class SKFACPreconditionKernel {
 public:
  SKFACPreconditionKernel(AotExtra& extra, const Arguments& shapes)
      : attributes_(extra),
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
      const SKFACSolvers solvers(arguments, attributes_.groups[index]);
      LayerGradients layer{};
      arguments.fill(index, solvers.G.size, solvers.A.size, layer);
      work.add(layer, {solvers.A}, {solvers.G}, first.next(layer), second.next(layer));
      products.add(layer);
    }
    arguments.expect_all_read();
    launch_products<false, true>(work.into_A, Precision::kFloat32, multiprocessors_, call.stream);
    launch_products(work.out_of_A, Precision::kFloat32, multiprocessors_, call.stream);
    launch_products(work.into_G, Precision::kFloat32, multiprocessors_, call.stream);
    launch_products<true, false>(work.out_of_G, Precision::kFloat32, multiprocessors_, call.stream);
    products.launch(call.stream);
  }

 private:
  GradientAttributes attributes_;
  int multiprocessors_;
  GradientWorkspace first_, second_;
  ProductWorkspace products_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(SKFACPrecondition, ms_kfac::SKFACPreconditionKernel)
