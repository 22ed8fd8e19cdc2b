// Computes the second moment of a convolution's patches from products of shifted images, without im2col.
//
// With stride and dilation 1, tap (i, j) at location (u, v) sees pixel r = (u + i - top, v + j - left). The block of
// taps (i, j) and (i', j') is therefore
//
//   sum over n and over r in W_ij of x[n, c, r] x[n, c', r + lag],   lag = (i' - i, j' - j),
//
// where W_ij are the pixels that tap (i, j) sees. It depends on the taps only through the lag and W_ij. A 3 x 3 kernel
// has 45 pairs of taps and 13 lags.
//
// The sets W_ij of one lag differ only at the borders. They are cut into pieces, segments of rows times segments of
// columns, such that each W_ij either contains a piece or is disjoint from it. A product is the sum over one piece; a
// block is the sum of its products. With a padding of 1 a 3 x 3 kernel has 29 products, 13 of which are long. No
// product is subtracted, so a block rounds like any sum over its pixels.
#pragma once

#include "shifted_images.h"

namespace ms_kfac {

// Pixels [first, last) along an axis that the same taps see.
struct Segment {
  int16_t first, last;

  __host__ __device__ int length() const { return last - first; }
};

// The offset between two taps, the first not after the second, and its products: each segment of rows with each segment
// of columns. Columns vary fastest.
struct Lag {
  int16_t down, right;
  uint8_t first_row, rows, first_column, columns;
  uint16_t first_product;

  // Left and right operands are then equal, and tiles above the diagonal are not computed.
  __host__ __device__ bool is_zero() const { return down == 0 && right == 0; }
};

// One matrix over pairs of channels per product, cut into tiles. The ones of a bias form one more channel, only in
// products with lag zero.
struct LagProducts {
  static constexpr int kMostSegments = 48, kMostLags = 48, kMostProducts = 160;

  // Side of a tile; 0 where the form is not used.
  int side;
  int channels, samples, groups;
  bool bias;
  int lags, products;
  Segment rows[kMostSegments], columns[kMostSegments];
  Lag of_lag[kMostLags];
  uint8_t lag_of[kMostProducts];
  // First task of each product. A product's tasks are the parts of the depth (split-K) of its first tile, of its second
  // tile and so on.
  uint32_t first_task[kMostProducts + 1];
  // The tile of each task, row-major.
  float* partials;

  __host__ __device__ bool used() const { return side > 0; }
  __host__ __device__ int64_t tasks() const { return used() ? first_task[products] : 0; }
  __host__ __device__ int64_t partial_numbers() const { return tasks() * side * side; }
  __host__ __device__ int across(const Lag& lag) const {
    return (channels + (bias && lag.is_zero() ? 1 : 0) + side - 1) / side;
  }
  // Tiles of one group.
  __host__ __device__ int64_t tiles(const Lag& lag) const {
    const int64_t count = across(lag);
    return lag.is_zero() ? count * (count + 1) / 2 : count * count;
  }
  __host__ __device__ int64_t tile(const Lag& lag, int row, int column) const {
    return lag.is_zero() ? static_cast<int64_t>(row) * (row + 1) / 2 + column
                         : static_cast<int64_t>(row) * across(lag) + column;
  }
  __host__ __device__ const Segment& rows_of(const Lag& lag, int product) const {
    return rows[lag.first_row + (product - lag.first_product) / lag.columns];
  }
  __host__ __device__ const Segment& columns_of(const Lag& lag, int product) const {
    return columns[lag.first_column + (product - lag.first_product) % lag.columns];
  }
  __host__ __device__ int64_t depth(const Lag& lag, int product) const {
    return static_cast<int64_t>(samples) * rows_of(lag, product).length() * columns_of(lag, product).length();
  }
  __host__ __device__ int parts(const Lag& lag, int product) const {
    return static_cast<int>((first_task[product + 1] - first_task[product]) /
                            static_cast<uint32_t>(groups * tiles(lag)));
  }
};

// One tile of one product, over one part of its depth.
struct LagTask {
  SymmetricTask tile;
  ImageRegion region;

  __host__ __device__ LagTask(const LagProducts& of, const Patches& images, int64_t task) : tile{} {
    int product = 0;
    for (int beyond = of.products; beyond - product > 1;) {
      const int middle = (product + beyond) / 2;
      (of.first_task[middle] <= task ? product : beyond) = middle;
    }
    const Lag& lag = of.of_lag[of.lag_of[product]];
    const int parts = of.parts(lag, product);
    const int64_t index = task - of.first_task[product], tiles = of.tiles(lag);
    tile.tile = task;
    tile.part = static_cast<int>(index % parts);
    tile.group = static_cast<int>(index / parts / tiles);
    tile.column = static_cast<int>(index / parts % tiles);
    if (lag.is_zero()) {
      while (tile.column > tile.row) tile.column -= ++tile.row;
    } else {
      tile.row = tile.column / of.across(lag);
      tile.column %= of.across(lag);
    }
    const Segment &rows = of.rows_of(lag, product), &columns = of.columns_of(lag, product);
    region = {rows.first * images.width + columns.first,
              lag.down * images.width + lag.right,
              tile.column,
              images.width - columns.length(),
              Divisor::of(rows.length() * columns.length()),
              Divisor::of(columns.length())};
    // The shifted operand differs from the other one even on the diagonal.
    if (!lag.is_zero()) tile.column = -1;
    tile.share(of.depth(lag, product), parts);
  }
};

}  // namespace ms_kfac
