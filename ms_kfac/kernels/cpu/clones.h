// Several versions of one hot function, of which the processor's is taken when the library is loaded.
#pragma once

// Sanitizers run before such a choice could be made. GCC before 12 has no dispatcher for versions by x86-64 level (its
// bug 101696).
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MS_KFAC_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MS_KFAC_CLONES
#endif
