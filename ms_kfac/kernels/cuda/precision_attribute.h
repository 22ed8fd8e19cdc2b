// The precision of an operator's products: read from its attributes, and turned into a template's argument.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "operator.h"
#include "tile/precision.h"

namespace ms_kfac {

// Reads the attribute "precision". Throws std::invalid_argument for an unknown value.
inline Precision precision_of(AotExtra& extra) {
  const std::string name = extra.GetAttrStr("precision");
  if (name == "float32") return Precision::kFloat32;
  if (name == "tf32") return Precision::kTf32;
  if (name == "bfloat16") return Precision::kBfloat16;
  throw std::invalid_argument("precision must be float32, tf32 or bfloat16, got " + name);
}

// Returns choose(constant) with the precision as an integral_constant: selects one of a template's three kernels.
template <typename Choose>
auto with_precision(Precision precision, const Choose& choose) {
  switch (precision) {
    case Precision::kTf32:
      return choose(std::integral_constant<Precision, Precision::kTf32>{});
    case Precision::kBfloat16:
      return choose(std::integral_constant<Precision, Precision::kBfloat16>{});
    default:
      return choose(std::integral_constant<Precision, Precision::kFloat32>{});
  }
}

}  // namespace ms_kfac
