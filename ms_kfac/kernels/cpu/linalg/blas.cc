#include "blas.h"

#include <dlfcn.h>

#include <mutex>
#include <string>

namespace ms_kfac::blas {

decltype(sgemm) sgemm = nullptr;
decltype(dgemm) dgemm = nullptr;
decltype(ssyrk) ssyrk = nullptr;
decltype(ssymm) ssymm = nullptr;
decltype(ssymv) ssymv = nullptr;
decltype(ssyr) ssyr = nullptr;
decltype(strsm) strsm = nullptr;
decltype(sdot) sdot = nullptr;
decltype(spotrf) spotrf = nullptr;
decltype(spotri) spotri = nullptr;
decltype(dpotrf) dpotrf = nullptr;
decltype(dpotri) dpotri = nullptr;
decltype(ssyevd) ssyevd = nullptr;
decltype(set_num_threads) set_num_threads = nullptr;

namespace {

std::mutex threads_in_use;

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, (std::string("scipy_") + name).c_str()));
  return function != nullptr;
}

}  // namespace

bool load(const char* path) {
  // Stays open for the lifetime of the process.
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  bool complete = find(library, "cblas_sgemm", sgemm);
  complete &= find(library, "cblas_dgemm", dgemm);
  complete &= find(library, "cblas_ssyrk", ssyrk);
  complete &= find(library, "cblas_ssymm", ssymm);
  complete &= find(library, "cblas_ssymv", ssymv);
  complete &= find(library, "cblas_ssyr", ssyr);
  complete &= find(library, "cblas_strsm", strsm);
  complete &= find(library, "cblas_sdot", sdot);
  complete &= find(library, "spotrf_", spotrf);
  complete &= find(library, "spotri_", spotri);
  complete &= find(library, "dpotrf_", dpotrf);
  complete &= find(library, "dpotri_", dpotri);
  complete &= find(library, "ssyevd_", ssyevd);
  complete &= find(library, "openblas_set_num_threads", set_num_threads);
  // The kernels parallelize their work themselves. OpenBLAS's threads in addition would oversubscribe the cores.
  if (complete) set_num_threads(1);
  return complete;
}

Threads::Threads(int threads) {
  threads_in_use.lock();
  set_num_threads(threads);
}

Threads::~Threads() {
  set_num_threads(1);
  threads_in_use.unlock();
}

}  // namespace ms_kfac::blas
