// How an operator meets MindSpore: its arrays with shapes and types checked, its attributes, its errors.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "aot_extra.h"

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
  // The data as float32; refuses other types.
  float* floats() const { return static_cast<float*>(of_type("float32")); }
  const int32_t* integers() const { return static_cast<const int32_t*>(of_type("int32")); }

 private:
  void* of_type(const char* wanted) const {
    if (std::strcmp(type, wanted) != 0)
      throw std::invalid_argument(std::string("expected ") + wanted + ", got " + type);
    return data;
  }
};

// All inputs, then all outputs, of one call.
class Arguments {
 public:
  Arguments(int count, void** data, int* axes, int64_t** shapes, const char** types)
      : count_(count), data_(data), axes_(axes), shapes_(shapes), types_(types) {}

  int count() const { return count_; }
  Array operator[](int index) const {
    if (index < 0 || index >= count_)
      throw std::out_of_range("argument " + std::to_string(index) + " of " + std::to_string(count_));
    return {data_[index], axes_[index], shapes_[index], types_[index]};
  }

 private:
  int count_;
  void** data_;
  int* axes_;
  int64_t** shapes_;
  const char** types_;
};

// Keeps the message of an operator's exception for Python and returns the code that MindSpore raises with.
int report_error(const char* name, const std::exception& error) noexcept;

// Says something once on stderr: a second call with the same text is silent. Also kept for kernels.status().
void warn_once(const std::string& text);

}  // namespace ms_kfac

// Defines the operator NAME, to be run on `Arguments& arguments, const NAME##Attributes& attributes`. The attributes
// are read from AotExtra once, when MindSpore creates the kernel.
#define MS_KFAC_OPERATOR(NAME)                                                                                       \
  static void run_##NAME(const ms_kfac::Arguments& arguments, const NAME##Attributes& attributes);                   \
  namespace {                                                                                                        \
  struct NAME##Data : AotKernelData {                                                                                \
    explicit NAME##Data(AotExtra& extra) : attributes(extra) {}                                                      \
    NAME##Attributes attributes;                                                                                     \
  };                                                                                                                 \
  }                                                                                                                  \
  extern "C" int NAME##Init(int*, int64_t**, const char**, AotExtra* extra) {                                        \
    try {                                                                                                            \
      extra->kernel_data = new NAME##Data(*extra);                                                                   \
      return 0;                                                                                                      \
    } catch (const std::exception& error) {                                                                          \
      return ms_kfac::report_error(#NAME, error);                                                                    \
    }                                                                                                                \
  }                                                                                                                  \
  extern "C" int NAME(int count, void** data, int* axes, int64_t** shapes, const char** types, void*, void* extra) { \
    try {                                                                                                            \
      auto* kernel_data = static_cast<NAME##Data*>(static_cast<AotExtra*>(extra)->kernel_data);                      \
      run_##NAME(ms_kfac::Arguments(count, data, axes, shapes, types), kernel_data->attributes);                     \
      return 0;                                                                                                      \
    } catch (const std::exception& error) {                                                                          \
      return ms_kfac::report_error(#NAME, error);                                                                    \
    }                                                                                                                \
  }                                                                                                                  \
  static void run_##NAME(const ms_kfac::Arguments& arguments, const NAME##Attributes& attributes)
