// OpenBLAS, loaded at run time. No kernel links to it, so the library builds without it. If it is missing,
// kernels.status() says so.
#pragma once

namespace ms_kfac::blas {

enum Layout { kRowMajor = 101 };
enum Transpose { kNo = 111, kYes = 112 };
enum Triangle { kUpper = 121, kLower = 122 };
enum Side { kLeft = 141, kRight = 142 };

// Pointers into OpenBLAS, null until load() succeeds. CBLAS and Fortran LAPACK conventions, 32-bit integers.
extern void (*sgemm)(Layout, Transpose, Transpose, int m, int n, int k, float alpha, const float* a, int lda,
                     const float* b, int ldb, float beta, float* c, int ldc);
extern void (*dgemm)(Layout, Transpose, Transpose, int m, int n, int k, double alpha, const double* a, int lda,
                     const double* b, int ldb, double beta, double* c, int ldc);
extern void (*ssyrk)(Layout, Triangle, Transpose, int n, int k, float alpha, const float* a, int lda, float beta,
                     float* c, int ldc);
extern void (*ssymm)(Layout, Side, Triangle, int m, int n, float alpha, const float* a, int lda, const float* b,
                     int ldb, float beta, float* c, int ldc);
extern void (*ssymv)(Layout, Triangle, int n, float alpha, const float* a, int lda, const float* x, int incx,
                     float beta, float* y, int incy);
extern void (*ssyr)(Layout, Triangle, int n, float alpha, const float* x, int incx, float* a, int lda);
extern void (*strsm)(Layout, Side, Triangle, Transpose, int diagonal, int m, int n, float alpha, const float* a,
                     int lda, float* b, int ldb);
extern float (*sdot)(int n, const float* x, int incx, const float* y, int incy);
extern void (*spotrf)(const char* uplo, const int* n, float* a, const int* lda, int* info);
extern void (*spotri)(const char* uplo, const int* n, float* a, const int* lda, int* info);
extern void (*dpotrf)(const char* uplo, const int* n, double* a, const int* lda, int* info);
extern void (*dpotri)(const char* uplo, const int* n, double* a, const int* lda, int* info);
extern void (*ssyevd)(const char* jobz, const char* uplo, const int* n, float* a, const int* lda, float* w, float* work,
                      const int* lwork, int* iwork, const int* liwork, int* info);
extern void (*set_num_threads)(int threads);

// Finds the functions in a shared library whose symbols start with "scipy_". Returns whether all of them exist.
bool load(const char* path);

// While it lives, OpenBLAS itself uses `threads` threads. Only one instance exists at a time in a process. Others wait.
class Threads {
 public:
  explicit Threads(int threads);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
};

}  // namespace ms_kfac::blas
