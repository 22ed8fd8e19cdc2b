// SKFAC: preconditions the gradients of many layers by inverses that are dense, or rows of Woodbury's identity.
//
// Inputs after the gradients, float32, per layer: the solvers of A and G, their dampings, one per group, and their
// ranks (2,), 0 before the first refresh. Everything else: gradient_arguments.h.

#include "../step/skfac_precondition.h"

#include "../../interface/gradient_arguments.h"
#include "../operator.h"

namespace {

using SKFACPreconditionAttributes = ms_kfac::GradientAttributes;

}  // namespace

MS_KFAC_OPERATOR(SKFACPrecondition) {
  ms_kfac::GradientArguments gradient_arguments(arguments, attributes);
  std::vector<ms_kfac::SKFACLayer> layers;
  for (size_t index = 0; index < gradient_arguments.layers(); ++index) {
    ms_kfac::SKFACLayer layer{};
    const int64_t groups = attributes.groups[index];
    for (ms_kfac::Solver* solver : {&layer.A, &layer.G}) {
      const ms_kfac::Array array = gradient_arguments.next();
      ms_kfac::expect(array.axes >= 2, "a solver must be a matrix");
      solver->size = array.shape[array.axes - 1];
      ms_kfac::expect(array.size() == groups * solver->size * solver->size, "not one solver for each group");
      solver->matrices = array.floats();
    }
    for (ms_kfac::Solver* solver : {&layer.A, &layer.G}) {
      const ms_kfac::Array array = gradient_arguments.next();
      ms_kfac::expect(array.size() == groups, "not one damping for each group");
      solver->damping = array.floats();
    }
    const ms_kfac::Array ranks = gradient_arguments.next();
    ms_kfac::expect(ranks.size() == 2, "not two ranks");
    layer.A.rank = static_cast<int64_t>(ranks.floats()[0]);
    layer.G.rank = static_cast<int64_t>(ranks.floats()[1]);
    gradient_arguments.fill(index, layer.G.size, layer.A.size, layer);
    layers.push_back(layer);
  }
  gradient_arguments.expect_all_read();
  ms_kfac::precondition(layers);
}
