// A symmetric sum of outer products, accumulated by several threads.
#pragma once

#include <cstdint>
#include <vector>

namespace ms_kfac {

// The division of a sum over vectors into tasks. The vectors are divided into parts, each with its own accumulator. The
// panels, each a range of the sum's rows, fill a part's accumulator in parallel.
struct Split {
  int64_t parts = 1, panels = 1;

  // For at most `workers` threads, `work` multiply-adds, `count` vectors, and an accumulator of that many floats.
  Split() = default;
  Split(int64_t workers, double work, int64_t count, int64_t accumulator);

  int64_t tasks() const { return parts * panels; }
  int64_t part(int64_t task) const { return task / panels; }
  int64_t panel(int64_t task) const { return task % panels; }
  // The range [first, last) of `count` vectors that a task processes.
  int64_t first(int64_t task, int64_t count) const { return part(task) * count / parts; }
  int64_t last(int64_t task, int64_t count) const { return (part(task) + 1) * count / parts; }
};

// Adds to both triangles of a (dimension, dimension) matrix whose rows are `stride` apart.
class SymmetricSum {
 public:
  SymmetricSum(float* matrix, int64_t stride, int64_t dimension, const Split& split);

  // Adds vectors stored as columns: feature f of vector t at columns[f * stride + t]. `count` is a multiple of
  // kPositionBlock. Features of zeros pad the columns to a multiple of kChannelBlock.
  void add_columns(int64_t task, const float* columns, int64_t stride, int64_t count);
  // Adds vectors stored as rows, `stride` apart.
  void add_rows(int64_t task, const float* rows, int64_t stride, int64_t count);
  // Adds up the parts in a fixed order.
  void finish();

  // The number of vectors per call of add_columns that suits the caches.
  int64_t columns_at_once() const;

 private:
  struct Panel {
    int64_t first, last;
  };
  Panel panel(int64_t task) const;

  float* matrix_;
  int64_t stride_, dimension_;
  Split split_;
  // For large matrices with a single part, BLAS adds to the matrix directly.
  bool in_place_;
  int64_t leading_;
  std::vector<float> parts_;
};

}  // namespace ms_kfac
