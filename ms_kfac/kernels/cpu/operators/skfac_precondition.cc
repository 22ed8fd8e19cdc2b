// SKFAC: preconditions the gradients of many layers by inverses that are dense, or rows of Woodbury's identity.
//
// Inputs after the gradients: skfac_solvers.h. Everything else: gradient_arguments.h.

#include "../step/skfac_precondition.h"

#include "../../interface/skfac_solvers.h"
#include "../operator.h"

namespace {

using SKFACPreconditionAttributes = ms_kfac::GradientAttributes;

ms_kfac::Solver solver_of(const ms_kfac::SolverArrays& arrays) {
  return {arrays.matrices, arrays.damping, arrays.size, static_cast<int>(*arrays.rank)};
}

}  // namespace

MS_KFAC_OPERATOR(SKFACPrecondition) {
  ms_kfac::GradientArguments gradient_arguments(arguments, attributes);
  std::vector<ms_kfac::SKFACLayer> layers;
  for (size_t index = 0; index < gradient_arguments.layers(); ++index) {
    const ms_kfac::SKFACSolvers solvers(gradient_arguments, attributes.groups[index]);
    ms_kfac::SKFACLayer layer{};
    layer.A = solver_of(solvers.A);
    layer.G = solver_of(solvers.G);
    gradient_arguments.fill(index, layer.G.size, layer.A.size, layer);
    layers.push_back(layer);
  }
  gradient_arguments.expect_all_read();
  ms_kfac::precondition(layers);
}
