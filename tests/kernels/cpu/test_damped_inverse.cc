// Compares damped inverses, rank-one updates, eigendecompositions and Woodbury's Z with the equations that define them.

#include <cstring>
#include <stdexcept>

#include "check.h"
#include "linalg/damped_inverse.h"
#include "linalg/eigendecomposition.h"
#include "linalg/low_rank_inverse.h"
#include "linalg/rank_one_inverse.h"

using Matrix = std::vector<float>;

// X'X of `rows` random rows.
static Matrix gram(int size, int rows, unsigned seed) {
  const Matrix X = check::normal(size_t(rows) * size, seed);
  Matrix product(size_t(size) * size);
  for (int i = 0; i < size; ++i)
    for (int j = 0; j < size; ++j) {
      double sum = 0;
      for (int row = 0; row < rows; ++row) sum += double(X[row * size + i]) * X[row * size + j];
      product[i * size + j] = static_cast<float>(sum);
    }
  return product;
}

static std::vector<double> identity(int size) {
  std::vector<double> eye(size_t(size) * size, 0.0);
  for (int i = 0; i < size; ++i) eye[i * size + i] = 1.0;
  return eye;
}

// (scale F + damping I) X, which should be the identity.
static Matrix times_damped(const ms_kfac::DampedFactor& of) {
  const int size = of.size;
  Matrix product(size_t(size) * size);
  for (int i = 0; i < size; ++i)
    for (int j = 0; j < size; ++j) {
      double sum = double(of.damping) * of.inverse[i * size + j];
      for (int k = 0; k < size; ++k) sum += double(of.scale) * of.factor[i * of.stride + k] * of.inverse[k * size + j];
      product[i * size + j] = static_cast<float>(sum);
    }
  return product;
}

static void expect(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
  }
}

// Sizes around the tile edges, one size that uses OpenBLAS's threads, and a block inside a larger matrix.
static void many_at_a_time() {
  const std::vector<int> sizes{1, 2, 31, 32, 33, 63, 64, 65, 100, 300};
  std::vector<Matrix> factors, inverses;
  for (int size : sizes) {
    factors.push_back(gram(size, size / 2 + 1, size));
    inverses.emplace_back(size_t(size) * size, 7.0f);
  }
  std::vector<ms_kfac::DampedFactor> batch;
  for (size_t i = 0; i < sizes.size(); ++i)
    batch.push_back({"factor", factors[i].data(), sizes[i], sizes[i], 1.0f / sizes[i], 0.5f, inverses[i].data()});
  Matrix block(20 * 20);
  batch.push_back({"block", factors.back().data() + 40 * 301, 300, 20, 1.0f, 0.5f, block.data()});
  ms_kfac::invert_damped(batch);
  for (const ms_kfac::DampedFactor& of : batch) {
    const Matrix product = times_damped(of);
    // The condition number, below 1e3, times the 6e-8 of float32.
    check::close("F F^-1", product.data(), identity(of.size), 1e-4);
    for (int i = 0; i < of.size; ++i)
      for (int j = 0; j < i; ++j)
        expect(of.inverse[i * of.size + j] == of.inverse[j * of.size + i], "an inverse is not symmetric");
  }
}

// [[1, 1], [1, 1 + e]] with e at the resolution of float32. Its Cholesky decomposition fails there but not in float64.
static void nearly_singular() {
  const float above = std::nextafter(1.0f, 2.0f), below = 1.0f;
  const Matrix factor{above, 1.0f, 1.0f, below};
  Matrix inverse(4);
  const float damping = 1e-9f;
  ms_kfac::invert_damped({{"nearly singular", factor.data(), 2, 2, 1.0f, damping, inverse.data()}});
  const double a = double(above) + damping, d = 1.0 + double(damping), determinant = a * d - 1.0;
  check::close("nearly singular", inverse.data(),
               {d / determinant, -1 / determinant, -1 / determinant, a / determinant}, 1e-6);
}

static void indefinite() {
  const Matrix factor{1.0f, 0.0f, 0.0f, -0.01f};
  Matrix inverse(4);
  ms_kfac::invert_damped({{"indefinite", factor.data(), 2, 2, 1.0f, 1e-4f, inverse.data()}});
  // 1e-4 and 1e-3 leave it indefinite, and 1e-2 singular up to rounding. So the final damping is at most 0.1.
  expect(inverse[0] > 0 && inverse[3] > 0 && inverse[0] > 1 / 1.11f, "an indefinite factor got the wrong damping");
}

static void refused(const Matrix& factor, float damping, const char* what) {
  const Matrix fine{2.0f, 0.0f, 0.0f, 2.0f}, before{3.0f, 1.0f, 1.0f, 4.0f};
  Matrix inverse = before, other = before;
  bool named = false;
  try {
    ms_kfac::invert_damped({{"fine", fine.data(), 2, 2, 1.0f, 0.1f, other.data()},
                            {"layer seven", factor.data(), 2, 2, 1.0f, damping, inverse.data()}});
  } catch (const std::runtime_error& error) {
    named = std::strstr(error.what(), "layer seven") != nullptr;
  }
  expect(named, what);
  expect(inverse == before, "the inverse of a refused factor changed");
  expect(other == before, "an inverse changed although a factor of the call is refused");
}

// The first factor has a Z, the second a Cholesky decomposition with a negative pivot.
static void no_z_is_written_if_one_fails() {
  const Matrix fine = gram(40, 40, 5), before(1600, 7.0f);
  Matrix Z[2] = {before, before}, inverse{3.0f, 1.0f, 1.0f, 4.0f};
  const Matrix factor{2.0f, 0.0f, 0.0f, 2.0f}, kept = inverse;
  bool refused = false;
  try {
    ms_kfac::invert_damped({{"dense", factor.data(), 2, 2, 1.0f, 0.1f, inverse.data()}}, [&] {
      ms_kfac::invert_low_rank({{"fine", fine.data(), 10, 40, 1.0f, 1.0f, Z[0].data()},
                                {"broken", fine.data(), 10, 40, 1.0f, -1e6f, Z[1].data()}});
    });
  } catch (const std::runtime_error& error) {
    refused = std::strstr(error.what(), "broken is not positive definite") != nullptr;
  }
  expect(refused, "an indefinite low-rank factor was accepted");
  expect(Z[0] == before && Z[1] == before, "Z was written although a factor of the call is refused");
  expect(inverse == kept, "an inverse was written although a low-rank factor is refused");
}

// Eigenvectors and Z of a call whose second factor holds NaN.
static void nothing_written_beside_nan() {
  const Matrix fine = gram(40, 40, 5), before(1600, 7.0f);
  Matrix broken = fine, vectors[2] = {before, before}, values[2] = {Matrix(40, 7.0f), Matrix(40, 7.0f)};
  broken[39 * 40 + 39] = NAN;
  int refused = 0;
  try {
    ms_kfac::decompose({{"fine", fine.data(), 40, 1.0f, 0.0f, values[0].data(), vectors[0].data()},
                        {"broken", broken.data(), 40, 1.0f, 0.0f, values[1].data(), vectors[1].data()}});
  } catch (const std::runtime_error& error) {
    refused += std::strstr(error.what(), "broken") != nullptr;
  }
  for (const Matrix& each : vectors) expect(each == before, "eigenvectors were written although a factor holds NaN");
  for (const Matrix& each : values)
    expect(each == Matrix(40, 7.0f), "eigenvalues were written although a factor holds NaN");
  Matrix Z[2] = {before, before};
  broken[9] = INFINITY;
  try {
    ms_kfac::invert_low_rank({{"fine", fine.data(), 10, 40, 1.0f, 1.0f, Z[0].data()},
                              {"broken", broken.data(), 10, 40, 1.0f, 1.0f, Z[1].data()}});
  } catch (const std::runtime_error& error) {
    refused += std::strstr(error.what(), "broken") != nullptr;
  }
  for (const Matrix& each : Z) expect(each == before, "Z was written although a factor is not finite");
  expect(refused == 2, "NaN or infinity was accepted");
}

static void too_large_for_lapack() {
  bool refused = false;
  try {
    ms_kfac::decompose({{"huge", nullptr, 32767, 1.0f, 0.0f, nullptr, nullptr}});
  } catch (const std::runtime_error& error) {
    refused = std::strstr(error.what(), "huge has 32767 rows") != nullptr;
  }
  expect(refused, "a factor beyond LAPACK's sizes was accepted");
}

static void rank_one() {
  const int size = 70;
  Matrix X = gram(size, 2 * size, 1);
  for (float& value : X) value /= size;
  const Matrix u = check::normal(size, 2);
  std::vector<double> product(size, 0.0), expected(X.size());
  double along = 0;
  for (int i = 0; i < size; ++i) {
    for (int j = 0; j < size; ++j) product[i] += double(X[i * size + j]) * u[j];
    along += product[i] * u[i];
  }
  for (int i = 0; i < size; ++i)
    for (int j = 0; j < size; ++j)
      expected[i * size + j] = X[i * size + j] - product[i] * product[j] / (1 / 0.25 + along);
  ms_kfac::update_inverses({{X.data(), size, u, 0.25f}});
  check::close("rank one", X.data(), expected, 1e-5);
}

static void eigenvectors() {
  const int size = 90;
  const Matrix factor = gram(size, 40, 3);
  Matrix values(size), vectors(factor.size());
  ms_kfac::decompose({{"factor", factor.data(), size, 0.5f, 1.0f, values.data(), vectors.data()}});
  std::vector<double> expected(factor.size());
  Matrix product(factor.size());
  for (int i = 0; i < size; ++i) {
    if (i > 0) expect(values[i - 1] <= values[i], "eigenvalues are not in ascending order");
    for (int j = 0; j < size; ++j) {
      expected[i * size + j] = 0.5 * factor[i * size + j] + (i == j);
      double sum = 0;
      for (int k = 0; k < size; ++k) sum += double(vectors[i * size + k]) * values[k] * vectors[j * size + k];
      product[i * size + j] = static_cast<float>(sum);
    }
  }
  check::close("Q S Q'", product.data(), expected, 1e-5);
}

static void woodbury() {
  const int rank = 20, size = 50;
  const Matrix X = check::normal(rank * size, 4);
  Matrix Z(X.size());
  const double damping = 2.0, scale = 0.5;
  ms_kfac::invert_low_rank({{"factor", X.data(), rank, size, float(scale), float(damping), Z.data()}});
  // (D I + X'X) (I - Z'Z) / D
  Matrix product(size * size);
  std::vector<double> inverse(size * size), damped(size * size);
  for (int i = 0; i < size; ++i)
    for (int j = 0; j < size; ++j) {
      double of_Z = 0, of_X = 0;
      for (int row = 0; row < rank; ++row) {
        of_Z += double(Z[row * size + i]) * Z[row * size + j];
        of_X += scale * X[row * size + i] * scale * X[row * size + j];
      }
      inverse[i * size + j] = ((i == j) - of_Z) / damping;
      damped[i * size + j] = of_X + damping * (i == j);
    }
  for (int i = 0; i < size; ++i)
    for (int j = 0; j < size; ++j) {
      double sum = 0;
      for (int k = 0; k < size; ++k) sum += damped[i * size + k] * inverse[k * size + j];
      product[i * size + j] = static_cast<float>(sum);
    }
  check::close("Woodbury", product.data(), identity(size), 1e-5);
}

int main(int argc, char** argv) {
  check::start(argc, argv);
  many_at_a_time();
  nearly_singular();
  indefinite();
  refused({NAN, 0.0f, 0.0f, 1.0f}, 0.1f, "NaN was accepted");
  refused({INFINITY, 0.0f, 0.0f, 1.0f}, 0.1f, "infinity was accepted");
  refused({1.0f, 0.0f, 0.0f, 1.0f}, NAN, "a damping of NaN was accepted");
  refused({0.1f, 5.0f, 5.0f, 0.1f}, 1e-3f,
          "a factor that no damping up to the trace makes positive definite was accepted");
  nothing_written_beside_nan();
  no_z_is_written_if_one_fails();
  too_large_for_lapack();
  rank_one();
  eigenvectors();
  woodbury();
}
