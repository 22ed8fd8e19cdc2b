// Helpers of the CPU's refresh operators. They read `due` and the damping directly, from host memory.
#pragma once

#include "../../interface/refresh_arguments.h"
#include "../operator.h"

namespace ms_kfac {

inline float number(const LayerArrays& arrays, int index) { return arrays.floats(index, 1)[0]; }

template <typename Visit>
void for_due_layers(const Arguments& arguments, const RefreshAttributes& attributes, int arrays, Visit visit) {
  for_due_layers(arguments, arguments[0].integers(), attributes, arrays, visit);
}

// The damping: the second input of every refresh operator.
inline float damping_of(const Arguments& arguments) {
  if (arguments[1].size() != 1) throw std::invalid_argument("the damping must be one number");
  return arguments[1].floats()[0];
}

}  // namespace ms_kfac
