#include "values.h"

#include <cstring>
#include <stdexcept>

namespace ms_kfac {
namespace {

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half & 0x7c00, magnitude = half & 0x7fff;
  if (exponent == 0) {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  // Infinity and NaN have all bits of the exponent set in both formats.
  const uint32_t rebias = exponent == 0x7c00 ? 224u << 23 : 112u << 23;
  return from_bits(sign | ((magnitude << 13) + rebias));
}

}  // namespace

FloatType float_type(const std::string& name) {
  if (name == "float32") return FloatType::kFloat32;
  if (name == "float16") return FloatType::kFloat16;
  if (name == "bfloat16") return FloatType::kBfloat16;
  if (name == "float64") return FloatType::kFloat64;
  throw std::invalid_argument("expected a floating-point type, got " + name);
}

const float* Values::read(int64_t first, int64_t count, std::vector<float>& scratch) const {
  if (type_ == FloatType::kFloat32 && scale_ == 1.0f) return static_cast<const float*>(data_) + first;
  if (static_cast<int64_t>(scratch.size()) < count) scratch.resize(count);
  float* to = scratch.data();
  switch (type_) {
    case FloatType::kFloat32: {
      const float* from = static_cast<const float*>(data_) + first;
      for (int64_t i = 0; i < count; ++i) to[i] = scale_ * from[i];
      break;
    }
    case FloatType::kFloat16: {
      const uint16_t* from = static_cast<const uint16_t*>(data_) + first;
      for (int64_t i = 0; i < count; ++i) to[i] = scale_ * from_half(from[i]);
      break;
    }
    case FloatType::kBfloat16: {
      const uint16_t* from = static_cast<const uint16_t*>(data_) + first;
      for (int64_t i = 0; i < count; ++i) to[i] = scale_ * from_bits(static_cast<uint32_t>(from[i]) << 16);
      break;
    }
    case FloatType::kFloat64: {
      const double* from = static_cast<const double*>(data_) + first;
      for (int64_t i = 0; i < count; ++i) to[i] = scale_ * static_cast<float>(from[i]);
      break;
    }
  }
  return to;
}

}  // namespace ms_kfac
