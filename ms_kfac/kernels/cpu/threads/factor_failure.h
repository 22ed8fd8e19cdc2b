// The one error whose type and fields reach the caller of parallel_for.
#pragma once

#include <stdexcept>
#include <string>

namespace ms_kfac {

// A factor that can't be inverted or decomposed, because of its numbers. `name` is the factor's.
struct FactorFailure : std::runtime_error {
  FactorFailure(const std::string& name, const std::string& why) : std::runtime_error(name + why), name(name) {}
  std::string name;
};

}  // namespace ms_kfac
