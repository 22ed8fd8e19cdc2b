// Eigenvalues and eigenvectors of factors, many of any sizes at a time, by Jacobi's method (jacobi.h).
//
// If one factor of a call holds NaN or infinity, the call writes nothing, and the next call throws and names the factor
// (inverse_failures.h). A basis that has not converged after all sweeps is written as it is: it is orthogonal, and F is
// nearly diagonal in it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../inverse/inverse_status.h"
#include "../operator.h"

namespace ms_kfac {

// F / count = Q diag(S) Q^T, or the identity if `seen` is zero. S ascends, and eigenvalues that are negative by
// rounding become 0. The columns of Q are the eigenvectors. All pointers are device pointers.
struct EigenFactor {
  const float *factor, *count, *seen;
  int size;
  float *values, *vectors;
  int index;  // into the sizes and names that the kernel was created with
};

class Eigendecompositions {
 public:
  // Declares workspaces for all factors that a call may pass.
  Eigendecompositions(AotExtra& extra, std::vector<int> sizes, std::vector<std::string> names);
  ~Eigendecompositions();

  // Tells the reporter of a factor that failed in an earlier call; without a reporter, throws std::runtime_error. Each
  // call must call it, after the stream is synchronized by the call's read on the host.
  void take_failures(int64_t reporter) const;

  // Launches all the work.
  Verdicts run(const std::vector<EigenFactor>& factors, const Call& call) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ms_kfac
