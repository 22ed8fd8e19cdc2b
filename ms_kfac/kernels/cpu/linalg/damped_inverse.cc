#include "damped_inverse.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "../../interface/messages.h"
#include "../threads/lpt_schedule.h"
#include "../threads/threads.h"
#include "blas.h"
#include "finite.h"

namespace ms_kfac {
namespace {

// Rows per task when all threads copy a single matrix.
constexpr int kRows = 64;
// Side of the square tiles of a transpose. Two tiles fit the first-level cache.
constexpr int kTile = 32;

void for_row_blocks(int size, const std::function<void(int first, int last)>& task) {
  parallel_for((size + kRows - 1) / kRows, [&](int64_t block) {
    const int first = static_cast<int>(block) * kRows;
    task(first, std::min(first + kRows, size));
  });
}

template <typename Number>
void copy_upper_triangle(const DampedFactor& of, double damping, Number* matrix) {
  const Number scale = of.scale;
  for_row_blocks(of.size, [&](int first, int last) {
    for (int i = first; i < last; ++i) {
      const float* from = of.factor + i * of.stride;
      Number* to = matrix + static_cast<int64_t>(i) * of.size;
      for (int j = i; j < of.size; ++j) to[j] = scale * from[j];
      to[i] += static_cast<Number>(damping);
    }
  });
}

// Inverts in place. A row-major upper triangle is a lower one for LAPACK. Returns whether the matrix was positive
// definite and its inverse is finite in float32.
//
// OpenBLAS's Cholesky doesn't stop at NaN. But a NaN in row i makes L_ii NaN, and so the inverse's i-th diagonal. An
// infinite F_ii makes that diagonal 0.
template <typename Number, typename Factorize>
bool invert(int size, Number* matrix, Factorize potrf, Factorize potri) {
  int info = 0;
  potrf("L", &size, matrix, &size, &info);
  if (info != 0) return false;
  potri("L", &size, matrix, &size, &info);
  if (info != 0) return false;
  for (int64_t i = 0; i < size; ++i) {
    const float diagonal = static_cast<float>(matrix[i * size + i]);
    if (!(diagonal > 0.0f) || std::isinf(diagonal)) return false;
  }
  return true;
}

double trace(const DampedFactor& of) {
  double sum = 0;
  for (int i = 0; i < of.size; ++i) sum += of.factor[i * of.stride + i];
  return of.scale * sum;
}

// Once per factor. warn_once alone would repeat the warning, because the damping changes between refreshes.
void warn_of_damping(const DampedFactor& of, double damping) {
  static std::mutex mutex;
  static std::set<std::string>* const warned = new std::set<std::string>;
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (!warned->insert(of.name).second) return;
  }
  std::ostringstream text;
  text << of.name << " is not positive definite with damping " << of.damping << ": inverted with " << damping;
  warn_once(text.str());
}

void invert_in_float64(const DampedFactor& of) {
  const int64_t size = of.size;
  const double largest = trace(of);
  std::vector<double> matrix(size * size);
  double damping = of.damping;
  for (;;) {
    copy_upper_triangle(of, damping, matrix.data());
    if (invert(of.size, matrix.data(), blas::dpotrf, blas::dpotri)) break;
    if (!(damping <= largest)) {
      std::ostringstream text;
      text << " has trace " << largest << " and is not positive definite with damping " << damping;
      throw FactorFailure(of.name, text.str());
    }
    // Smaller damping would vanish in float64 next to the trace and change nothing.
    damping = std::max(10 * damping, 1e-15 * largest);
    // With a trace of zero and no damping, multiplying by ten changes nothing.
    if (damping == 0) damping = 1;
  }
  if (damping != of.damping) warn_of_damping(of, damping);
  for (int64_t i = 0; i < size; ++i)
    for (int64_t j = i; j < size; ++j) of.inverse[i * size + j] = static_cast<float>(matrix[i * size + j]);
}

// A new inverse in the upper triangle, which LAPACK overwrites. The lower triangle and the saved diagonal still hold
// the old one.
struct PendingInverse {
  DampedFactor of;
  std::vector<float> diagonal;  // empty before the upper triangle is touched

  void compute() {
    const int64_t size = of.size;
    std::vector<float> saved(size);
    for (int64_t i = 0; i < size; ++i) saved[i] = of.inverse[i * size + i];
    diagonal = std::move(saved);
    copy_upper_triangle(of, of.damping, of.inverse);
    if (!invert(of.size, of.inverse, blas::spotrf, blas::spotri)) invert_in_float64(of);
  }

  void restore() const {
    if (diagonal.empty()) return;
    const int64_t size = of.size;
    for (int64_t i = 0; i < size; ++i) {
      of.inverse[i * size + i] = diagonal[i];
      for (int64_t j = i + 1; j < size; ++j) of.inverse[i * size + j] = of.inverse[j * size + i];
    }
  }
};

}  // namespace

void mirror_upper(float* matrix, int size) {
  for_row_blocks(size, [&](int first, int last) {
    for (int i0 = first; i0 < last; i0 += kTile)
      for (int j0 = 0; j0 < std::min(i0 + kTile, last); j0 += kTile)
        for (int64_t i = i0; i < std::min(i0 + kTile, last); ++i)
          for (int64_t j = j0; j < std::min<int64_t>(j0 + kTile, i); ++j) matrix[i * size + j] = matrix[j * size + i];
  });
}

void require_finite(const std::vector<DampedFactor>& factors) {
  require_each_finite(factors, [](const DampedFactor& of) { return upper_finite(of.factor, of.stride, of.size); });
  for (const DampedFactor& of : factors)
    if (!std::isfinite(of.scale) || !std::isfinite(of.damping))
      throw FactorFailure(of.name, " has a scale or a damping of NaN or infinity");
}

void invert_damped(std::vector<DampedFactor> factors, const std::function<void()>& also) {
  require_finite(factors);
  std::vector<PendingInverse> pending;
  for (DampedFactor& of : factors) pending.push_back({std::move(of), {}});
  const auto cost = [](const PendingInverse& inverse) { return std::pow(inverse.of.size, 3.0); };
  try {
    run_largest_first(pending, cost, [](PendingInverse& inverse) { inverse.compute(); });
    if (also) also();
  } catch (...) {
    for (const PendingInverse& inverse : pending) inverse.restore();
    throw;
  }
  run_largest_first(pending, cost,
                    [](const PendingInverse& inverse) { mirror_upper(inverse.of.inverse, inverse.of.size); });
}

}  // namespace ms_kfac
