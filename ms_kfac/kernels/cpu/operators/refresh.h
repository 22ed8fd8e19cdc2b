// Helpers of the CPU's refresh operators. They read `due` and the damping directly, from host memory.
#pragma once

#include <algorithm>

#include "../../interface/refresh_arguments.h"
#include "../../interface/reports.h"
#include "../linalg/finite.h"
#include "../operator.h"

namespace ms_kfac {

// Per layer, whether it is refreshed.
using DueLayers = std::vector<char>;

inline float number(const LayerArrays& arrays, int index) { return arrays.floats(index, 1)[0]; }

// Calls visit(index of the layer, its arrays) for every layer that is due. Each layer has `arrays` arrays.
template <typename Visit>
void for_due_layers(const Arguments& arguments, const RefreshAttributes& attributes, const DueLayers& due, int arrays,
                    Visit visit) {
  expect_arrays(arguments, attributes, arrays);
  for (int layer = 0; layer < static_cast<int>(due.size()); ++layer)
    if (due[layer]) visit(layer, LayerArrays(arguments, 2 + layer * arrays, attributes.layers[layer]));
}

// The damping: the second input of every refresh operator.
inline float damping_of(const Arguments& arguments) {
  if (arguments[1].size() != 1) throw std::invalid_argument("the damping must be one number");
  return arguments[1].floats()[0];
}

// The layers that `due`, the first input of every refresh operator, selects.
inline DueLayers due_layers(const Arguments& arguments, size_t layers) {
  const Array flags = arguments[0];
  if (flags.size() != 1 && flags.size() != static_cast<int64_t>(layers))
    throw std::invalid_argument("due must have one number, or one for each of " + std::to_string(layers) + " layers");
  DueLayers due(layers);
  for (size_t layer = 0; layer < layers; ++layer) due[layer] = flags.integers()[flags.size() == 1 ? 0 : layer] != 0;
  return due;
}

// Refreshes the layers that are due. A layer with a factor that can't be inverted keeps all of its inverses: the
// reporter is told, and the others are refreshed without the layer. An error would end the compiled step for good.
// Repeating is safe: an operator that throws a FactorFailure has written nothing.
template <typename Attributes>
void refresh_each(const Arguments& arguments, const Attributes& attributes,
                  void (*refresh)(const Arguments&, const Attributes&, const DueLayers&)) {
  DueLayers due = due_layers(arguments, attributes.layers.size());
  for (;;) {
    try {
      return refresh(arguments, attributes, due);
    } catch (const FactorFailure& failure) {
      const Reporter report = reporter();
      if (attributes.reporter == 0 || report == nullptr) throw;
      const auto owns = [&](const std::string& layer) { return failure.name.rfind(layer + ": ", 0) == 0; };
      const auto found = std::find_if(attributes.layers.begin(), attributes.layers.end(), owns);
      const size_t layer = found - attributes.layers.begin();
      if (layer == due.size() || !due[layer]) throw;
      due[layer] = 0;
      report(attributes.reporter, -1, 0, nullptr, failure.what());
      failure_reported() = true;
    }
  }
}

}  // namespace ms_kfac

// Defines the refresh operator NAME. The body that follows gets `Arguments& arguments, const NAME##Attributes&
// attributes, const DueLayers& due`.
#define MS_KFAC_REFRESH_OPERATOR(NAME)                                                                       \
  static void refresh_##NAME(const ms_kfac::Arguments& arguments, const NAME##Attributes& attributes,        \
                             const ms_kfac::DueLayers& due);                                                 \
  MS_KFAC_OPERATOR(NAME) { ms_kfac::refresh_each<NAME##Attributes>(arguments, attributes, refresh_##NAME); } \
  static void refresh_##NAME(const ms_kfac::Arguments& arguments, const NAME##Attributes& attributes,        \
                             const ms_kfac::DueLayers& due)
