#include "rank_one_inverse.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "../threads/threads.h"
#include "blas.h"

namespace ms_kfac {
namespace {

// Rows per task when all threads update a single matrix.
constexpr int kRows = 64;

void update(const RankOneUpdate& of) {
  const int size = of.size;
  std::vector<float> product(size);
  blas::ssymv(blas::kRowMajor, blas::kUpper, size, 1.0f, of.inverse, size, of.u.data(), 1, 0.0f, product.data(), 1);
  const double along = std::inner_product(of.u.begin(), of.u.end(), product.begin(), 0.0);
  const float share = static_cast<float>(1.0 / (1.0 / of.weight + along));
  const float* column = product.data();
  parallel_for((size + kRows - 1) / kRows, [&](int64_t block) {
    const int64_t last = std::min<int64_t>((block + 1) * kRows, size);
    for (int64_t i = block * kRows; i < last; ++i) {
      float* row = of.inverse + i * size;
      // This order of the products rounds both triangles the same, so X stays symmetric.
      for (int j = 0; j < size; ++j) row[j] -= (column[i] * column[j]) * share;
    }
  });
}

}  // namespace

void update_inverses(const std::vector<RankOneUpdate>& updates) {
  std::vector<const RankOneUpdate*> order;
  for (const RankOneUpdate& of : updates) order.push_back(&of);
  std::sort(order.begin(), order.end(), [](auto* one, auto* other) { return one->size > other->size; });
  parallel_for(order.size(), [&](int64_t index) { update(*order[index]); });
}

}  // namespace ms_kfac
