// What headers of newer libraries refer to, and older libraries lack; see portable_symbols.h. Hidden: no other library
// of the process gets these.

#include <new>

#if defined(__GLIBC__) && defined(__GLIBCXX__)

// Whether reference counts may be changed without atomic instructions: never, since kernels have threads.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}

namespace std {
[[noreturn]] __attribute__((visibility("hidden"))) void __throw_bad_array_new_length() { throw bad_alloc(); }
}  // namespace std

#endif
