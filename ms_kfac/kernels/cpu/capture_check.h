// The numbers by which a commit checks that a layer's statistics are of the gradient that was delivered.
#pragma once

#include "layer_batch.h"

namespace ms_kfac {

// Of one pass, with the signs of interface/signs.h and dout as delivered, whatever the statistics make of it:
//
//   product = sum over groups, samples and locations of u v,    u = sum over features of sign a (+ 1 with a bias),
//   scale = sum over groups of |u| |v|,                         v = sum over outputs of sign dout.
struct CaptureCheck {
  float product, scale;
};

// One pass over x and one over dout, on all threads; the result depends on their number alone.
CaptureCheck capture_check(const LayerGeometry& geometry, const FloatArray& x, const FloatArray& dout);

}  // namespace ms_kfac
