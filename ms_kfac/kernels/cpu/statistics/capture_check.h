// The numbers with which a commit checks that a layer's statistics belong to the delivered gradient.
#pragma once

#include "id_counts.h"
#include "layer_batch.h"

namespace ms_kfac {

// The numbers of one backward pass, with the signs of interface/signs.h. dout is taken as delivered: the statistics'
// scale, mean and reduce setting do not apply.
//
//   product = sum over groups, samples and locations of u v,    u = sum over features of sign a (+ 1 with a bias),
//   scale = sum over groups of |u| |v|,                         v = sum over outputs of sign dout.
struct CaptureCheck {
  float product, scale;
};

// Reads x and dout once each, on all threads. The rounding of the result depends only on the number of threads.
CaptureCheck capture_check(const LayerGeometry& geometry, const FloatArray& x, const FloatArray& dout);
// The same for an embedding. Its weight has one row per id and one column per output, so that the signs change places:
// u is the row's sign of the id, 0 for an id outside of the table.
CaptureCheck capture_check(const Ids& ids, const FloatArray& dout);

}  // namespace ms_kfac
