// Reports the GPU architectures that the library contains machine code for.

#include <cstdio>

#ifndef MS_KFAC_ARCHITECTURES
#define MS_KFAC_ARCHITECTURES ""
#endif

// Writes the compute capabilities, such as "80 90", truncated to the buffer. Returns the full length.
extern "C" int ms_kfac_cuda_architectures(char* buffer, int size) {
  return std::snprintf(buffer, size > 0 ? size : 0, "%s", MS_KFAC_ARCHITECTURES);
}
