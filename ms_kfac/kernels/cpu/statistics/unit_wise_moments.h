// Sums of a normalization layer's unit-wise Fisher.
#pragma once

#include "../../interface/normalization_geometry.h"
#include "capture_check.h"

namespace ms_kfac {

// Adds the sums over samples to `squares` (2, C), gamma before beta, and to `cross` (C):
//
//   dgamma^2, dbeta^2 and dgamma dbeta    with dgamma = sum over positions of g x_hat, dbeta = sum over positions of g.
//
// Returns the numbers of the capture check for dout as delivered. x is read twice, and dout once.
CaptureCheck add_unit_wise_moments(const NormalizationGeometry& geometry, const FloatArray& x, const FloatArray& dout,
                                   float* squares, float* cross);

}  // namespace ms_kfac
