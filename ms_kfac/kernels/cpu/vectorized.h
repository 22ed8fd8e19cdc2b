// For hot loops of our own: the library is built for any processor, and these functions once more for newer ones.
#pragma once

// Not under sanitizers, which start too late for the functions that choose between the copies.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define MS_KFAC_VECTORIZED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MS_KFAC_VECTORIZED
#endif
