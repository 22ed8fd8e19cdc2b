// Helpers of the kernels' C++ tests: OpenBLAS from the command line, random numbers, and comparisons with a message.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "linalg/blas.h"
#include "threads/threads.h"

namespace check {

inline void start(int argc, char** argv) {
  if (argc < 2 || !ms_kfac::blas::load(argv[1])) {
    std::fprintf(stderr, "usage: %s LIBRARY (an OpenBLAS with symbols scipy_*)\n", argv[0]);
    std::exit(2);
  }
  ms_kfac::set_threads(3);
}

inline std::vector<float> normal(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& value : values) value = distribution(generator);
  return values;
}

// Ends the program unless |found - expected| <= tolerance * max |expected| everywhere.
inline void close(const char* what, const float* found, const std::vector<double>& expected, double tolerance) {
  double largest = 0, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::fmax(largest, std::fabs(expected[i]));
    const double difference = std::fabs(found[i] - expected[i]);
    error = std::isnan(difference) ? INFINITY : std::fmax(error, difference);
  }
  if (error > tolerance * largest) {
    std::fprintf(stderr, "%s: error %.3g of largest %.3g, tolerance %.3g\n", what, error, largest, tolerance);
    std::exit(1);
  }
}

}  // namespace check
