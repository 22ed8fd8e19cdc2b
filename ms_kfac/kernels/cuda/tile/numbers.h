// Device arrays of the float types of mixed precision, read as float32 and scaled.
#pragma once

#include <cuda_fp16.h>

#include <stdexcept>
#include <string>

#include "../scheduling/launch.h"
#include "global_memory.h"

namespace ms_kfac {

enum class NumberType { kFloat32, kFloat16, kBfloat16 };

// The type for a MindSpore type name. Throws std::invalid_argument for others.
inline NumberType number_type(const std::string& name) {
  if (name == "float32") return NumberType::kFloat32;
  if (name == "float16") return NumberType::kFloat16;
  if (name == "bfloat16") return NumberType::kBfloat16;
  throw std::invalid_argument("expected float32, float16 or bfloat16, got " + name);
}

__device__ inline float as_float(float value) { return value; }
__device__ inline float as_float(__half value) { return __half2float(value); }
// The upper 16 bits of a float32.
struct Bfloat16 {
  uint16_t bits;
};
__device__ inline float as_float(Bfloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

struct Numbers {
  const void* data;
  NumberType type;
  // Applied before any product: the square of a mean-loss gradient of a large batch could underflow.
  float scale;

  // Calls use(pointer) with a pointer of the array's type. The switch is outside loops, so that their loads overlap.
  template <typename Use>
  __device__ void visit(const Use& use) const {
    switch (type) {
      case NumberType::kFloat32:
        use(in_global(static_cast<const float*>(data)));
        break;
      case NumberType::kFloat16:
        use(in_global(static_cast<const __half*>(data)));
        break;
      case NumberType::kBfloat16:
        use(in_global(static_cast<const Bfloat16*>(data)));
        break;
    }
  }
};

}  // namespace ms_kfac
