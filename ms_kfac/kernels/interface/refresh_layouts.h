// The arrays of one layer, in the order in which the operators that refresh inverses take them. This is the only place
// that fixes the order: kernels of all devices index by these names, and Python asks the library for them.
//
// Sums and inverses have a leading axis where there are groups; `weights` holds the weight of each sum.
// BlockSplitRefresh: the inverses are those of the whole blocks (count, split, split) and of the last, smaller one; a
//   single number stands for what there is not. It has no groups.
// TraceRestrictedRefresh: `traces` has one number per group, with the attribute "roots" two: traces, then shifts.
// ShermanMorrisonRefresh: `counts` holds the weights of the first four arrays. The last three come with the attribute
//   "rescales" alone.
// SwiftRefresh: `weights` holds the numbers of rows of A and of G, then their ranks.
// EigenbasisRefresh: `weights` holds those of A, of G and of s.
#pragma once

// clang-format off
#define MS_KFAC_REFRESH_LAYOUTS(LAYOUT)                                                                        \
  LAYOUT(KroneckerRefresh, A_sum, G_sum, weights, A_inverse, G_inverse)                                        \
  LAYOUT(BlockSplitRefresh, A_sum, G_sum, weights, A_inverses, A_last_inverse, G_inverses, G_last_inverse)     \
  LAYOUT(TraceRestrictedRefresh, Phi_sum, Psi_sum, traces, weights, Phi_inverse, Psi_inverse, beta)            \
  LAYOUT(ShermanMorrisonRefresh, A_sum, G_sum, A_diagonal, G_diagonal, counts, full, refreshes, A_inverse,     \
         G_inverse, A_trace, G_trace, scale)                                                                   \
  LAYOUT(SwiftRefresh, A_rows, G_rows, weights, A_solver, G_solver, A_damping, G_damping, refreshed)           \
  LAYOUT(EigenbasisRefresh, A_sum, G_sum, weights, Q_A, Q_G, s_sum, fresh, S_A, S_G, damping)
// clang-format on

namespace ms_kfac {

#define MS_KFAC_LAYOUT(name, ...)  \
  struct name##Layout {            \
    enum { __VA_ARGS__, kArrays }; \
  };
MS_KFAC_REFRESH_LAYOUTS(MS_KFAC_LAYOUT)
#undef MS_KFAC_LAYOUT

}  // namespace ms_kfac
