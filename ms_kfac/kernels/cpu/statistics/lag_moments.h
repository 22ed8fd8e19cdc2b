// The second moment of a convolution's patches, computed from products of shifted images.
//
// With stride and dilation 1, tap (i, j) at location (u, v) sees pixel r = (u + i - top, v + j - left). Over all
// locations, r covers a window W_ij of the plane of pixels. So the block of taps (i, j) and (i', j') is
//
//   sum over n and over r in W_ij of x[n, c, r] x[n, c', r + lag],   lag = (i' - i, j' - j).
//
// Apart from the window it depends only on the lag. A 3 x 3 kernel has 45 pairs of taps and 13 lags. The sum over the
// whole plane is computed once per lag. The window omits rows at the top and bottom and columns at the left and right
// of the image, fewer than the kernel has. Their sums are subtracted. The sums of the corners, which lie in a row and
// in a column, are added back.
//
// The rounding error of the difference is that of the sum over the plane. Every pixel is in the window of at least one
// tap. So this sum is at most k_h k_w times the largest entry of these channels' blocks.
//
// The plan lists the products that each block sums. It depends only on the shape of the images. Its cost grows at least
// with the fourth power of the kernel size, and the estimates include it.
#pragma once

#include <vector>

#include "images.h"

namespace ms_kfac {

class LagMoments {
 public:
  // Plans for a window with stride and dilation 1.
  LagMoments(const ImageShape& shape, const Window& window);

  // Adds sum over n and t of p_nt p_nt^T to a symmetric matrix, on at most `workers` threads. The images must have the
  // shape of the plan.
  void add(const Images& images, bool bias, float* matrix, int64_t workers) const;

  // Estimated times of add() and of the constructor on one core, in nanoseconds.
  double cost() const { return cost_; }
  static double planning_cost(const ImageShape& shape, const Window& window);

 private:
  // All rows of an image, or the rows at one end that some tap omits. The same for columns.
  enum class Place { kWhole, kBefore, kAfter };
  struct Band {
    Place place;
    int64_t first, count;
    bool whole() const { return place == Place::kWhole; }
  };
  // One accumulator: the products of a piece of the planes and the shifted planes.
  struct Product {
    int64_t piece, shift;
    bool symmetric;
  };
  // A part of every image: all of it, or bands of rows, of columns or of corners. A piece is a single row, column or
  // pixel of a band, because a tap omits whole pieces. The pieces of several samples are contiguous.
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
  // Two taps, the first not after the second, and the terms of their block.
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
  // The number of channels, rounded up to a multiple of kChannelBlock.
  int64_t channels_;
  std::vector<Cut> cuts_;
  std::vector<TapPair> pairs_;
  int64_t products_ = 0;
  double cost_;
};

}  // namespace ms_kfac
