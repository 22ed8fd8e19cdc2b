// Checks of whole arrays, of any floating-point type, for NaN and infinity.
#pragma once

#include <vector>

#include "../../interface/arguments.h"
#include "../../interface/reports.h"

namespace ms_kfac {

// Whether all numbers of all arrays are finite. Large arrays are read on all threads.
bool all_finite(const std::vector<Array>& arrays);

// kNaN if the array holds NaN, else kInfinite if it holds infinity, else kFinite.
NotFiniteKind not_finite(const Array& array);

}  // namespace ms_kfac
