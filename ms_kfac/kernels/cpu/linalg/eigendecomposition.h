// Eigenvalues and eigenvectors of factors: many per call, of any sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ms_kfac {

struct EigenFactor {
  std::string name;  // for messages
  const float* factor;
  int size;
  float scale;
  float shift;  // added to the diagonal
  float* values;
  float* vectors;
};

// scale F + shift I = Q diag(S) Q'. S ascends, and eigenvalues that are negative by rounding become 0. The columns of Q
// are the eigenvectors. Reads the upper triangle of F.
//
// Throws std::runtime_error with the factor's name, and writes nothing, if a factor holds NaN or infinity or is too
// large for LAPACK's 32-bit sizes. Also throws if LAPACK's iterations do not converge. They work in `vectors` and
// `values`, so the old contents are lost then.
void decompose(std::vector<EigenFactor> factors);

}  // namespace ms_kfac
