// The numbers of a MindSpore array, read as float32.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ms_kfac {

enum class FloatType { kFloat16, kBfloat16, kFloat32, kFloat64 };

// Converts the name of a MindSpore type. Throws if it is not a floating-point type.
FloatType float_type(const std::string& name);

class Values {
 public:
  Values(const void* data, FloatType type, float scale = 1.0f) : data_(data), type_(type), scale_(scale) {}

  // Values [first, first + count) times the scale. Returns a pointer into the array if no conversion is necessary,
  // otherwise into `scratch`. The scale applies to the values and not to their squares: the squared gradient of a mean
  // loss over a large batch could underflow.
  const float* read(int64_t first, int64_t count, std::vector<float>& scratch) const;

 private:
  const void* data_;
  FloatType type_;
  float scale_;
};

}  // namespace ms_kfac
