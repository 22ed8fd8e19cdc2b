// The entry points through which MindSpore calls a CPU operator.
#pragma once

#include "../interface/aot_extra.h"
#include "../interface/arguments.h"
#include "../interface/messages.h"

// Defines the operator NAME. The body that follows gets `Arguments& arguments, const NAME##Attributes& attributes`. The
// attributes are read from AotExtra once, when MindSpore creates the kernel.
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

// The same for an operator of backward passes, whose inputs may have another batch size in each step of one graph. Its
// output is a token of a fixed shape.
#define MS_KFAC_BACKWARD_OPERATOR(NAME)                                                        \
  extern "C" std::vector<int64_t> NAME##InferShape(int*, int64_t**, AotExtra*) { return {1}; } \
  MS_KFAC_OPERATOR(NAME)
