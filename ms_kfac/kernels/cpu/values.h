// The numbers of one of MindSpore's arrays, read as float32.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ms_kfac {

enum class FloatType { kFloat16, kBfloat16, kFloat32, kFloat64 };

// The type of MindSpore's name; refuses others than floats.
FloatType float_type(const std::string& name);

class Values {
 public:
  Values(const void* data, FloatType type, float scale = 1.0f) : data_(data), type_(type), scale_(scale) {}

  // Values [first, first + count) times the scale: the array itself where nothing has to be done, else in `scratch`.
  // Scaled here and not in the square: the square of a large batch's mean-loss gradient could underflow.
  const float* read(int64_t first, int64_t count, std::vector<float>& scratch) const;

 private:
  const void* data_;
  FloatType type_;
  float scale_;
};

}  // namespace ms_kfac
