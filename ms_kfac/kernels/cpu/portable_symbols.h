// Included in front of every file, so that the library also loads where glibc and libstdc++ are older than those it was
// built with: glibc 2.28 and GCC 8, which the wheels' tag manylinux_2_28 names. Each function here has an older version
// that does the same, which the linker would not choose by itself.
//
// libstdc++ can't be linked statically instead: strings with the old ABI, which cross the boundary to MindSpore, must
// have the same empty string on both sides.
#pragma once

#include <features.h>

#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
// The first version that each architecture had.
#ifdef __x86_64__
#define MS_KFAC_OLDEST_GLIBC "GLIBC_2.2.5"
#else
#define MS_KFAC_OLDEST_GLIBC "GLIBC_2.17"
#endif
#define MS_KFAC_OLDEST(function) __asm__(".symver " #function "," #function "@" MS_KFAC_OLDEST_GLIBC)
MS_KFAC_OLDEST(dlopen);
MS_KFAC_OLDEST(dlsym);
MS_KFAC_OLDEST(pow);
MS_KFAC_OLDEST(pthread_mutex_trylock);
__asm__(
    ".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE,"
    "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
#endif
