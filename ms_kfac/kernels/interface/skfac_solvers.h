// The solvers of one layer of SKFAC, as its preconditioning reads them.
//
// Inputs per layer, float32: the solvers of A and G, one per group; their dampings, one per group; their ranks (2,), 0
// before the first refresh. The first R rows of a solver of rank R < d are Z of Woodbury's identity; of rank d, it is
// the inverse, which is symmetric.
#pragma once

#include "gradient_arguments.h"

namespace ms_kfac {

struct SolverArrays {
  float* matrices;       // (groups, size, size)
  const float* damping;  // (groups,): D of (I - Z' Z) / D
  const float* rank;     // scalar
  int size;
};

struct SKFACSolvers {
  SolverArrays A{}, G{};

  SKFACSolvers(GradientArguments& arguments, int64_t groups) {
    for (SolverArrays* solver : {&A, &G}) {
      const Array array = arguments.next();
      expect(array.axes >= 2, "a solver must be a matrix");
      const int64_t size = array.shape[array.axes - 1];
      expect(array.size() == groups * size * size, "not one solver for each group");
      solver->matrices = array.floats();
      solver->size = static_cast<int>(size);
    }
    for (SolverArrays* solver : {&A, &G}) {
      const Array array = arguments.next();
      expect(array.size() == groups, "not one damping for each group");
      solver->damping = array.floats();
    }
    const Array ranks = arguments.next();
    expect(ranks.size() == 2, "not two ranks");
    A.rank = ranks.floats();
    G.rank = ranks.floats() + 1;
  }
};

}  // namespace ms_kfac
