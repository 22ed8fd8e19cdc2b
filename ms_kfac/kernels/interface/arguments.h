// The arrays that MindSpore passes to an operator, with checks of shape and type.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace ms_kfac {

// One input or output of an operator.
struct Array {
  void* data;
  int axes;
  const int64_t* shape;
  const char* type;

  int64_t size() const {
    int64_t product = 1;
    for (int axis = 0; axis < axes; ++axis) product *= shape[axis];
    return product;
  }
  // The data as float32. Throws for other types.
  float* floats() const { return static_cast<float*>(of_type("float32")); }
  const int32_t* integers() const { return static_cast<const int32_t*>(of_type("int32")); }

 private:
  void* of_type(const char* wanted) const {
    if (std::strcmp(type, wanted) != 0)
      throw std::invalid_argument(std::string("expected ") + wanted + ", got " + type);
    return data;
  }
};

// All inputs of one call, then all outputs. While MindSpore creates a kernel, the data pointers are null.
class Arguments {
 public:
  Arguments(int count, void** data, int* axes, int64_t** shapes, const char** types)
      : count_(count), data_(data), axes_(axes), shapes_(shapes), types_(types) {}

  int count() const { return count_; }
  Array operator[](int index) const {
    if (index < 0 || index >= count_)
      throw std::out_of_range("argument " + std::to_string(index) + " of " + std::to_string(count_));
    return {data_ == nullptr ? nullptr : data_[index], axes_[index], shapes_[index], types_[index]};
  }

 private:
  int count_;
  void** data_;
  int* axes_;
  int64_t** shapes_;
  const char** types_;
};

}  // namespace ms_kfac
