// The arrays of one layer, in the order in which the refresh operators take them. Only this file defines the order: the
// kernels of all devices index by these names, and Python reads them from the library.
//
// Sums and inverses of layers with groups have a leading axis. `weights` holds the weight of each sum.
//
// BlockSplitRefresh: the inverses are those of the full blocks (count, split, split) and of the last, smaller block. A
//   single number replaces an absent array. There are no groups.
// TraceRestrictedRefresh: `traces` has one number per group. With the attribute "roots" it has two: traces, then
// shifts. ShermanMorrisonRefresh: `counts` holds the weights of the first four arrays. The last three arrays exist only
// with the
//   attribute "rescales".
// SKFACRefresh: `weights` holds the numbers of rows of A and of G, then their ranks.
// EigenbasisRefresh: `weights` holds the weights of A, G and s.
#pragma once

// clang-format off
#define MS_KFAC_REFRESH_LAYOUTS(LAYOUT)                                                                        \
  LAYOUT(KroneckerRefresh, A_sum, G_sum, weights, A_inverse, G_inverse)                                        \
  LAYOUT(BlockSplitRefresh, A_sum, G_sum, weights, A_inverses, A_last_inverse, G_inverses, G_last_inverse)     \
  LAYOUT(TraceRestrictedRefresh, Phi_sum, Psi_sum, traces, weights, Phi_inverse, Psi_inverse, beta)            \
  LAYOUT(ShermanMorrisonRefresh, A_sum, G_sum, A_diagonal, G_diagonal, counts, full, refreshes, A_inverse,     \
         G_inverse, A_trace, G_trace, scale)                                                                   \
  LAYOUT(SKFACRefresh, A_rows, G_rows, weights, A_solver, G_solver, A_damping, G_damping, solver_ranks)           \
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
