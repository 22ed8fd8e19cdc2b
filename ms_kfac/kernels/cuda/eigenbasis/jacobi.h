// Eigenvalues and eigenvectors of symmetric matrices by Jacobi's method in blocks, many of any sizes at a time.
//
// A matrix F is split into panels of 32 rows. In a round the panels form pairs, and for each pair p
//
//   U_p^T F_pp U_p    is closer to diagonal: one rotation for each two of its 64 rows (jacobi_rotations.cu)
//   F := U^T F U, Q := Q U    with U the rotations of all pairs (jacobi_update.cu)
//
// A sweep has as many rounds as it takes for each panel to meet each other one. Off-diagonal elements converge
// quadratically (Golub & Van Loan 2013, sections 8.5.2 and 8.5.6). A matrix of n rows takes 4 n^3 multiply-adds per
// sweep, nearly all in independent products of 64 x 64 matrices, and about nine sweeps.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "../inverse/inverse_status.h"

namespace ms_kfac {

constexpr int kJacobiPanel = 32, kPair = 2 * kJacobiPanel, kPairNumbers = kPair * kPair;
// Later sweeps of a matrix that has converged do nothing.
constexpr int kSweeps = 20;

// Pair number `index` of a round, of a number of players that is even: a round-robin tournament, in which each two
// players meet once in count - 1 rounds.
struct Meeting {
  int first, second;

  __host__ __device__ static Meeting of(int index, int round, int count) {
    const int others = count - 1;
    const int one = index == 0 ? others : (round + index) % others, other = (round - index + others) % others;
    return one < other ? Meeting{one, other} : Meeting{other, one};
  }
};

// A matrix whose eigenvalues are sought. All pointers are device pointers.
struct JacobiMatrix {
  // F, with zeros beyond `size`. A rotation never mixes them with other rows. It has `stride()` rows and columns.
  float* matrix;
  float* vectors;    // Q: `size` rows and columns
  float* rotations;  // per pair U^T
  // Whether a pair was rotated in this round, per pair; whether any pair was, per sweep.
  unsigned *rotated, *rotated_in_sweep;
  int size, index;  // among the factors that the kernel was created with

  // An even number.
  __host__ __device__ static int panels_of(int size) { return 2 * ((size + kPair - 1) / kPair); }
  __host__ __device__ int panels() const { return panels_of(size); }
  __host__ __device__ int pairs() const { return panels() / 2; }
  __host__ __device__ int stride() const { return panels() * kJacobiPanel; }
};

// A matrix in one round.
struct JacobiRound {
  JacobiMatrix of;
  int sweep, round;

  __device__ bool is_first() const { return sweep == 0 && round == 0; }
  // The row of F, and column, of row i of a pair.
  __device__ int row(int pair, int i) const {
    const Meeting panels = Meeting::of(pair, round, of.panels());
    return (i < kJacobiPanel ? panels.first : panels.second) * kJacobiPanel + i % kJacobiPanel;
  }
};

// One round of some matrices: U of all pairs, then the products. Nothing is done for a factor without a verdict that it
// is to be written. F must be there; Q is the identity before the first round, whatever it holds.
void find_rotations(const std::vector<JacobiRound>& rounds, const Verdicts& verdicts, cudaStream_t stream);
void apply_rotations(const std::vector<JacobiRound>& rounds, const Verdicts& verdicts, cudaStream_t stream);

}  // namespace ms_kfac
