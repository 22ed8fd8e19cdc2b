// The second moment of a convolution's patches from products of shifted images.
//
// With stride and dilation 1, tap (i, j) at location (u, v) sees pixel r = (u + i - top, v + j - left), and r runs over
// a window W_ij of the plane of pixels. So the block of taps (i, j) and (i', j') is
//
//   sum over n and over r in W_ij of x[n, c, r] x[n, c', r + lag],   lag = (i' - i, j' - j),
//
// and depends on the taps through the lag alone but for the window. A 3 x 3 kernel has 45 pairs of taps and 13 lags.
// The sum over the whole plane is taken once a lag. What the window leaves out is rows at the top and bottom and
// columns at the left and right of the image, fewer than the kernel has: their sums are subtracted, and those of the
// corners, which are in a row and in a column, added back.
//
// What rounds in the difference is the sum over the plane. Every pixel is in the window of one tap at least, so that
// this sum is at most k_h k_w times the largest entry of these channels' blocks.
//
// Which products each block is the sum of is planned from the images' shape alone. The plan grows with the fourth power
// of the kernel's size and more, and counts with the work that it is for.
#pragma once

#include <vector>

#include "images.h"

namespace ms_kfac {

class LagMoments {
 public:
  // Plans for a window with stride and dilation 1.
  LagMoments(const ImageShape& shape, const Window& window);

  // Adds sum over n and t of p_nt p_nt^T to a symmetric matrix, on at most `workers` threads. The images have the
  // plan's shape.
  void add(const Images& images, bool bias, float* matrix, int64_t workers) const;

  // Estimates of the time of add() and of the constructor, in nanoseconds of one core.
  double cost() const { return cost_; }
  static double planning_cost(const ImageShape& shape, const Window& window);

 private:
  // All rows of an image, or those at one end that some tap leaves out; or columns.
  enum class Place { kWhole, kBefore, kAfter };
  struct Band {
    Place place;
    int64_t first, count;
    bool whole() const { return place == Place::kWhole; }
  };
  // One accumulator: a piece of the planes times the planes shifted.
  struct Product {
    int64_t piece, shift;
    bool symmetric;
  };
  // What is cut out of every image: all of it, or bands of rows, of columns or of corners. A piece is a single row,
  // column or pixel of a band, because a tap leaves out whole pieces; the pieces of several samples lie side by side.
  struct Cut {
    Band rows, columns;
    int64_t pieces, sample_length, capacity, piece_length, stride;
    std::vector<Product> products;
    int64_t first_product;
  };
  struct Term {
    int64_t product;
    float sign;
  };
  // Two taps, the first not after the second, and what their block is the sum of.
  struct TapPair {
    int64_t first, second;
    std::vector<Term> terms;
  };
  class Task;

  static std::vector<Band> bands(int axis, const ImageShape& shape, const Window& window);
  void add_cut(const Band& rows, const Band& columns);
  void add_terms(Cut& cut, TapPair& pair, std::vector<int64_t>& known) const;
  bool leaves_out(int axis, const Band& band, int64_t tap, int64_t piece) const;
  double estimate() const;
  int64_t accumulator() const { return channels_ * channels_; }
  void assemble(const float* sums, float* matrix, int64_t stride, bool parallel) const;

  ImageShape shape_;
  Window window_;
  // Rounded up.
  int64_t channels_;
  std::vector<Cut> cuts_;
  std::vector<TapPair> pairs_;
  int64_t products_ = 0;
  double cost_;
};

}  // namespace ms_kfac
