#include "low_rank_inverse.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "../threads/lpt_schedule.h"
#include "blas.h"
#include "finite.h"

namespace ms_kfac {
namespace {

constexpr int kNonUnit = 131;

// Whether the decomposition succeeded. Checks that the diagonal is finite, because OpenBLAS's Cholesky doesn't stop at
// NaN.
template <typename Number, typename Factorize>
bool factorize(int rank, std::vector<Number>& small, Factorize potrf) {
  int info = 0;
  potrf("L", &rank, small.data(), &rank, &info);
  bool finite = info == 0;
  for (int64_t i = 0; finite && i < rank; ++i) finite = std::isfinite(static_cast<float>(small[i * rank + i]));
  return finite;
}

void factorize_in_float64(const LowRankFactor& of, std::vector<float>& small) {
  const int rank = of.rank;
  std::vector<double> X(of.rows, of.rows + int64_t{rank} * of.size), precise(small.size(), 0.0);
  for (int64_t i = 0; i < rank; ++i) precise[i * rank + i] = of.damping;
  blas::dgemm(blas::kRowMajor, blas::kNo, blas::kYes, rank, rank, of.size, double(of.scale) * of.scale, X.data(),
              of.size, X.data(), of.size, 1.0, precise.data(), rank);
  if (!factorize(rank, precise, blas::dpotrf))
    throw FactorFailure(of.name, " is not positive definite with its damping");
  std::copy(precise.begin(), precise.end(), small.begin());
}

struct PendingZ {
  LowRankFactor of;
  std::vector<float> small;  // L' in row-major order

  void decompose() {
    const int rank = of.rank, size = of.size;
    small.resize(int64_t{rank} * rank);
    blas::ssyrk(blas::kRowMajor, blas::kUpper, blas::kNo, rank, size, of.scale * of.scale, of.rows, size, 0.0f,
                small.data(), rank);
    for (int64_t i = 0; i < rank; ++i) small[i * rank + i] += of.damping;
    // A row-major upper triangle is a lower one for LAPACK.
    if (!factorize(rank, small, blas::spotrf)) factorize_in_float64(of, small);
  }

  void write() const {
    const int64_t count = int64_t{of.rank} * of.size;
    for (int64_t i = 0; i < count; ++i) of.Z[i] = of.scale * of.rows[i];
    blas::strsm(blas::kRowMajor, blas::kLeft, blas::kUpper, blas::kYes, kNonUnit, of.rank, of.size, 1.0f, small.data(),
                of.rank, of.Z, of.size);
  }
};

}  // namespace

void require_finite(const std::vector<LowRankFactor>& factors) {
  require_each_finite(factors, [](const LowRankFactor& of) {
    return all_finite(of.rows, int64_t{of.rank} * of.size, of.scale) && std::isfinite(of.damping);
  });
}

void invert_low_rank(std::vector<LowRankFactor> factors) {
  require_finite(factors);
  std::vector<PendingZ> pending;
  for (LowRankFactor& of : factors) pending.push_back({std::move(of), {}});
  const auto cost = [](const PendingZ& Z) { return double(Z.of.rank) * Z.of.rank * (Z.of.size + Z.of.rank); };
  run_largest_first(pending, cost, [](PendingZ& Z) { Z.decompose(); });
  run_largest_first(pending, cost, [](const PendingZ& Z) { Z.write(); });
}

}  // namespace ms_kfac
