// A symmetric sum of outer products that several threads add to.
#pragma once

#include <cstdint>
#include <vector>

namespace ms_kfac {

// How a sum over vectors is shared out. Every part of the vectors has an accumulator of its own, which the panels, each
// a range of the sum's rows, fill side by side.
struct Split {
  int64_t parts = 1, panels = 1;

  // For at most `workers` threads, `work` multiply-adds, `count` vectors and an accumulator of so many floats.
  Split() = default;
  Split(int64_t workers, double work, int64_t count, int64_t accumulator);

  int64_t tasks() const { return parts * panels; }
  int64_t part(int64_t task) const { return task / panels; }
  int64_t panel(int64_t task) const { return task % panels; }
  // What of `count` vectors a task takes: [first of its part, first of the next).
  int64_t first(int64_t task, int64_t count) const { return part(task) * count / parts; }
  int64_t last(int64_t task, int64_t count) const { return (part(task) + 1) * count / parts; }
};

// Adds to a (dimension, dimension) matrix whose rows are `stride` apart, both triangles alike.
class SymmetricSum {
 public:
  SymmetricSum(float* matrix, int64_t stride, int64_t dimension, const Split& split);

  // Vectors as columns: feature f of vector t at columns[f * stride + t]. `count` is a multiple of kPositionBlock, and
  // there are features of zeros up to a multiple of kChannelBlock.
  void add_columns(int64_t task, const float* columns, int64_t stride, int64_t count);
  // Vectors as rows, `stride` apart.
  void add_rows(int64_t task, const float* rows, int64_t stride, int64_t count);
  // Adds the parts up, always in the same order.
  void finish();

  // Vectors a call of add_columns should bring, for the caches' sake.
  int64_t columns_at_once() const;

 private:
  struct Panel {
    int64_t first, last;
  };
  Panel panel(int64_t task) const;

  float* matrix_;
  int64_t stride_, dimension_;
  Split split_;
  // With a single part and large matrices BLAS adds to the matrix itself.
  bool in_place_;
  int64_t leading_;
  std::vector<float> parts_;
};

}  // namespace ms_kfac
