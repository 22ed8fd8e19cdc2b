// Eigenvalues and eigenvectors of factors, many of them at a time and of any sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ms_kfac {

struct EigenFactor {
  std::string name;  // in messages
  const float* factor;
  int size;
  float scale;
  float shift;  // added to the diagonal
  float* values;
  float* vectors;
};

// scale F + shift I = Q diag(S) Q': S ascending, with 0 for what rounding left negative, and Q's columns the
// eigenvectors. Of F the upper triangle is read. Throws std::runtime_error that names the factor, and writes nothing,
// where one holds NaN or infinity or is too large for LAPACK's 32-bit sizes. Throws also where LAPACK's iterations do
// not converge: they work in `vectors` and `values`, which are lost then.
void decompose(std::vector<EigenFactor> factors);

}  // namespace ms_kfac
