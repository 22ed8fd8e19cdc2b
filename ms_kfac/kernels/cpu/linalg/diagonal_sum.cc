#include "diagonal_sum.h"

namespace ms_kfac {

double diagonal_sum(const float* matrix, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += matrix[i * size + i];
  return sum;
}

}  // namespace ms_kfac
