#include "eigendecomposition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "../threads/lpt_schedule.h"
#include "blas.h"
#include "finite.h"

namespace ms_kfac {
namespace {

// Side of the square tiles of a transpose. Two tiles fit the first-level cache.
constexpr int kTile = 32;
constexpr int64_t kLargestInt = std::numeric_limits<int>::max();

// The smallest workspace of ssyevd, in floats.
int64_t least_work(int64_t size) { return 1 + 6 * size + 2 * size * size; }

void transpose(float* matrix, int size) {
  for (int i0 = 0; i0 < size; i0 += kTile)
    for (int j0 = 0; j0 <= i0; j0 += kTile)
      for (int64_t i = i0; i < std::min(i0 + kTile, size); ++i)
        for (int64_t j = j0; j < std::min<int64_t>(j0 + kTile, i); ++j)
          std::swap(matrix[i * size + j], matrix[j * size + i]);
}

void decompose_one(const EigenFactor& of) {
  const int size = of.size;
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = i; j < size; ++j) of.vectors[i * size + j] = of.scale * of.factor[i * size + j];
    of.vectors[i * size + i] += of.shift;
  }
  int info = 0, work_size = -1, integer_size = -1, integer_best = 0;
  float best = 0;
  // A row-major upper triangle is a lower one for LAPACK.
  blas::ssyevd("V", "L", &size, of.vectors, &size, of.values, &best, &work_size, &integer_best, &integer_size, &info);
  // ssyevd returns the workspace size as a float32, which may be rounded down.
  const int64_t wanted = std::max(static_cast<int64_t>(best * 1.0001f) + 1, least_work(size));
  work_size = static_cast<int>(std::min(wanted, kLargestInt));
  integer_size = std::max(integer_best, 3 + 5 * size);
  std::vector<float> work(work_size);
  std::vector<int> integers(integer_size);
  blas::ssyevd("V", "L", &size, of.vectors, &size, of.values, work.data(), &work_size, integers.data(), &integer_size,
               &info);
  // Not a FactorFailure: the basis is lost, so the layer can't go on with it.
  if (info != 0) throw std::runtime_error(of.name + ": LAPACK's ssyevd did not converge");
  for (int i = 0; i < size; ++i) of.values[i] = std::max(of.values[i], 0.0f);
  transpose(of.vectors, size);
}

}  // namespace

void decompose(std::vector<EigenFactor> factors) {
  for (const EigenFactor& of : factors)
    if (least_work(of.size) > kLargestInt)
      throw std::runtime_error(of.name + " has " + std::to_string(of.size) +
                               " rows: LAPACK's ssyevd takes no more than 32766");
  // LAPACK's iterations may not terminate on NaN.
  require_each_finite(factors,
                      [](const EigenFactor& of) { return upper_finite(of.factor, of.size, of.size, of.scale); });
  const auto cost = [](const EigenFactor& of) { return std::pow(of.size, 3.0); };
  run_largest_first(factors, cost, decompose_one);
}

}  // namespace ms_kfac
