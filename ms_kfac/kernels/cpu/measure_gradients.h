// What a commit compares a layer's statistics with, of its delivered gradient.
#pragma once

#include <cstdint>
#include <vector>

namespace ms_kfac {

struct MeasuredLayer {
  const float* gradient;       // (rows, columns, taps)
  const float* bias_gradient;  // (biases,)
  const float* weight;
  const float* bias;
  int64_t rows, columns, taps;
  int64_t biases;  // as many as rows; of a normalization over several axes as many as its weight; 0 without a bias
};

// Three numbers for each layer, with the signs r and s of interface/signs.h: r^T dW s, r^T W s, both with the bias, and
// sqrt(|dW|^2 + |db|^2). On all threads; the result does not depend on their number.
void measure_gradients(const std::vector<MeasuredLayer>& layers, float* numbers);

}  // namespace ms_kfac
