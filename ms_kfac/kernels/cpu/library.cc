// Functions that Python calls through ctypes to set up the library.

#include "linalg/blas.h"
#include "threads/threads.h"

extern "C" {

int ms_kfac_load_blas(const char* path) { return ms_kfac::blas::load(path) ? 1 : 0; }

int ms_kfac_threads() { return ms_kfac::threads(); }

void ms_kfac_set_threads(int count) { ms_kfac::set_threads(count); }
}
