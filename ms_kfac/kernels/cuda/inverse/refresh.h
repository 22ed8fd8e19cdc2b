// Shared code of the GPU operators that refresh inverses. Each begins with one read on the host, which says what is
// due.
#pragma once

#include <vector>

#include "../../interface/refresh_arguments.h"
#include "../operator.h"
#include "../scheduling/launch.h"
#include "damped_inverse.h"

namespace ms_kfac {

// Reads `due`, one number or one per layer. Synchronizes the stream.
inline std::vector<int32_t> read_due(const Call& call, const RefreshAttributes& attributes, int arrays) {
  expect_arrays(call.arguments, attributes, arrays);
  std::vector<int32_t> due(call.arguments[0].size());
  read_on_host(call.arguments[0].integers(), static_cast<int64_t>(due.size()), due.data(), call.stream);
  return due;
}

// The damping, the second input of these operators, as a device pointer.
inline const float* damping_of(const Arguments& arguments) {
  if (arguments[1].size() != 1) throw std::invalid_argument("the damping must be one number");
  return arguments[1].floats();
}

// A call that inverts factors that are damped in pairs. collect(layer's index, its arrays, pairs, factors) adds the
// work of a layer that is due. damp(pairs, the call's damping) launches the computation of the factors' damping.
template <typename Pair, typename Collect, typename Damp>
void refresh_pairs(const Call& call, const RefreshAttributes& attributes, int arrays, const DampedInverses& inverses,
                   const Collect& collect, const Damp& damp) {
  const float* damping = damping_of(call.arguments);
  const std::vector<int32_t> due = read_due(call, attributes, arrays);
  inverses.take_failures(attributes.reporter);
  std::vector<Pair> pairs;
  std::vector<DampedFactor> factors;
  for_due_layers(call.arguments, due.data(), attributes, arrays,
                 [&](int index, const LayerArrays& of_layer) { collect(index, of_layer, pairs, factors); });
  if (factors.empty()) return;
  damp(pairs, damping);
  inverses.run(factors, call);
}

}  // namespace ms_kfac
