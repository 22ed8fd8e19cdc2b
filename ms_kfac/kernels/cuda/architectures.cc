// Which GPUs the library has machine code for.

#include <cstdio>

#ifndef MS_KFAC_ARCHITECTURES
#define MS_KFAC_ARCHITECTURES ""
#endif

// The numbers of the architectures, such as "80 90", cut to the buffer; returns the whole length.
extern "C" int ms_kfac_cuda_architectures(char* buffer, int size) {
  return std::snprintf(buffer, size > 0 ? size : 0, "%s", MS_KFAC_ARCHITECTURES);
}
