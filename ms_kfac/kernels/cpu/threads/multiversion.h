// Function multiversioning for hot loops. The loader picks the version for the processor.
#pragma once

// Sanitizers run before the loader can pick a version. GCC before 12 has no dispatcher for x86-64 levels (GCC bug
// 101696).
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MS_KFAC_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MS_KFAC_CLONES
#endif
