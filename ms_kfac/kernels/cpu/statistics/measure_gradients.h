// Measurements of a layer's delivered gradient. A commit compares the layer's statistics with them.
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
  int64_t biases;  // rows; the size of the weight for a normalization over several axes; 0 without a bias
};

// Writes three numbers per layer, with the signs r and s of interface/signs.h: r^T dW s and r^T W s, both including the
// bias, and sqrt(|dW|^2 + |db|^2). Runs on all threads. The result does not depend on their number.
void measure_gradients(const std::vector<MeasuredLayer>& layers, float* numbers);

}  // namespace ms_kfac
