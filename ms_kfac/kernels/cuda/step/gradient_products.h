// Shared code of the operators that precondition layers: gradients and updates as matrices, workspaces between two
// products, and the inner products of gradients and updates.
#pragma once

#include "../../interface/gradient_arguments.h"
#include "../operator.h"
#include "../precision_attribute.h"
#include "../scheduling/counter_memory.h"
#include "../tile/matrix_products.h"
#include "inner_products.h"

namespace ms_kfac {

// Reads the attribute "precision": float32 or TF32, which launch_products() has.
inline Precision precision_of_preconditioning(AotExtra& extra) {
  const Precision precision = precision_of(extra);
  expect(precision != Precision::kBfloat16, "precision must be float32 or tf32, got bfloat16");
  return precision;
}

// [dW db], from column `column` on. Its values are only read.
inline MatrixView gradient_view(const LayerGradients& layer, int column, int column_step, int row_step) {
  return {const_cast<float*>(layer.weight_gradient),
          const_cast<float*>(layer.bias_gradient),
          static_cast<int>(layer.columns),
          column,
          column_step,
          row_step};
}

// [U_W U_b], from row `row` on.
inline MatrixView update_view(const LayerGradients& layer, int64_t row, int row_step) {
  return {layer.weight_update + row * layer.columns,
          layer.bias_update != nullptr ? layer.bias_update + row : nullptr,
          static_cast<int>(layer.columns),
          0,
          0,
          row_step};
}

// The product left right, a matrix of a layer's size per group.
inline MatrixProduct layer_product(const LayerGradients& layer, const MatrixView& left, const MatrixView& right,
                                   const MatrixView& result, int64_t depth) {
  MatrixProduct product{};
  product.left = left;
  product.right = right;
  product.result = result;
  product.rows = static_cast<int>(layer.rows);
  product.columns = static_cast<int>(layer.width());
  product.depth = static_cast<int>(depth);
  product.count = static_cast<int>(layer.groups);
  return product;
}

inline int64_t gradient_numbers(const GradientAttributes& attributes, const Arguments& arguments) {
  int64_t numbers = 0;
  for (int64_t position : attributes.positions) numbers += arguments[static_cast<int>(position)].size();
  return numbers;
}

// Hands out one matrix of the size of [dW db] per layer, in order.
class GradientBuffer {
 public:
  GradientBuffer(float* first, int64_t numbers) : next_(first), left_(numbers) {}

  float* next(const LayerGradients& layer) {
    const int64_t size = layer.groups * layer.rows * layer.width();
    expect(size <= left_, "shapes must be those that the kernel was created with");
    left_ -= size;
    next_ += size;
    return next_ - size;
  }

 private:
  float* next_;
  int64_t left_;
};

class GradientWorkspace {
 public:
  GradientWorkspace(AotExtra& extra, const GradientAttributes& attributes, const Arguments& shapes)
      : numbers_(gradient_numbers(attributes, shapes)), workspace_(add_workspace(extra, numbers_ * sizeof(float))) {}

  GradientBuffer of(const Call& call) const { return {call.workspace<float>(workspace_), numbers_}; }

 private:
  int64_t numbers_;
  int workspace_;
};

// The inner products of one call.
class ProductList {
 public:
  ProductList(const InnerProductMemory& memory, int64_t partials) : memory_(memory), partials_(partials) {}

  void add(const LayerGradients& layer) {
    const int64_t biases = layer.groups * layer.rows;
    add(layer.weight_gradient, layer.weight_update, biases * layer.columns, layer.weight_product);
    if (layer.bias_gradient != nullptr) add(layer.bias_gradient, layer.bias_update, biases, layer.bias_product);
  }

  void launch(cudaStream_t stream) const { launch_items(sum_inner_products, items_, memory_, kChunkThreads, stream); }

 private:
  void add(const float* gradient, const float* update, int64_t size, float* result) {
    items_.push_back({gradient, update, size, result, next_, static_cast<int>(items_.size())});
    next_ += static_cast<int>(items_.back().blocks());
    expect(next_ <= partials_, "shapes must be those that the kernel was created with");
  }

  InnerProductMemory memory_;
  int64_t partials_;
  int next_ = 0;
  std::vector<InnerProduct> items_;
};

namespace {

// Defined per translation unit, like its counters.
class ProductWorkspace {
 public:
  ProductWorkspace(AotExtra& extra, const GradientAttributes& attributes, const Arguments& shapes)
      : counters_(static_cast<int>(attributes.positions.size())) {
    for (int64_t position : attributes.positions) partials_ += chunks(shapes[static_cast<int>(position)].size());
    workspace_ = add_workspace(extra, partials_ * sizeof(double));
  }

  ProductList of(const Call& call) const {
    return {{call.workspace<double>(workspace_), counters_.device()}, partials_};
  }

 private:
  CounterRange counters_;
  int64_t partials_ = 0;
  int workspace_;
};

}  // namespace

}  // namespace ms_kfac
