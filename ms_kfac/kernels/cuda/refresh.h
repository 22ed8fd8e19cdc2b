// How the operators of the GPU that refresh inverses begin: with the one read on the host that says what is due.
#pragma once

#include <vector>

#include "../interface/refresh_arguments.h"
#include "launch.h"
#include "operator.h"

namespace ms_kfac {

// `due`, one number or one a layer, as the host reads it; waits for the stream.
inline std::vector<int32_t> read_due(const Call& call, const RefreshAttributes& attributes, int arrays) {
  expect_arrays(call.arguments, attributes, arrays);
  std::vector<int32_t> due(call.arguments[0].size());
  read_on_host(call.arguments[0].integers(), static_cast<int64_t>(due.size()), due.data(), call.stream);
  return due;
}

// The damping, the second input of all; on the device.
inline const float* damping_of(const Arguments& arguments) {
  if (arguments[1].size() != 1) throw std::invalid_argument("the damping must be one number");
  return arguments[1].floats();
}

}  // namespace ms_kfac
