"""The operators of ``ms_kfac.ops`` that do the work of a refresh or a step, and which have native kernels."""

from __future__ import annotations

# One line an operator: its name, and the exported function of its kernel, the same on every device; None
# while there is none. The CPU's library has all of them, that of the GPU those that it exports. Every
# operator has its fallback.
REGISTRY: dict[str, str | None] = {
    "kronecker_statistics": "KroneckerStatistics",
    "trace_restricted_statistics": "TraceRestrictedStatistics",
    "sherman_morrison_statistics": "ShermanMorrisonStatistics",
    "skfac_statistics": None,
    "eigenbasis_statistics": "EigenbasisStatistics",
    "unit_wise_statistics": None,
    "embedding_statistics": None,
    "commit_statistics": "CommitStatistics",
    "measure_gradients": "MeasureGradients",
    "kronecker_refresh": "KroneckerRefresh",
    "kronecker_precondition": "KroneckerPrecondition",
    "eigenbasis_precondition": "EigenbasisPrecondition",
    "momentum_step": "MomentumStep",
    "block_split_refresh": "BlockSplitRefresh",
    "sherman_morrison_refresh": "ShermanMorrisonRefresh",
    "trace_restricted_refresh": "TraceRestrictedRefresh",
    "skfac_refresh": "SKFACRefresh",
    "eigenbasis_refresh": "EigenbasisRefresh",
}
