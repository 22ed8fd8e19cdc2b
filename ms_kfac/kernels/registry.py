"""Registry of the operators of ``ms_kfac.ops`` and their native kernels."""

from __future__ import annotations

# One line per operator: its name and its exported kernel function, the same on every device. The CPU library
# has all kernels; the GPU library has those that it exports. Every operator has a fallback.
REGISTRY: dict[str, str] = {
    "kronecker_statistics": "KroneckerStatistics",
    "trace_restricted_statistics": "TraceRestrictedStatistics",
    "sherman_morrison_statistics": "ShermanMorrisonStatistics",
    "skfac_statistics": "SKFACStatistics",
    "eigenbasis_statistics": "EigenbasisStatistics",
    "unit_wise_statistics": "UnitWiseStatistics",
    "embedding_statistics": "EmbeddingStatistics",
    "commit_statistics": "CommitStatistics",
    "measure_gradients": "MeasureGradients",
    "kronecker_refresh": "KroneckerRefresh",
    "kronecker_precondition": "KroneckerPrecondition",
    "eigenbasis_precondition": "EigenbasisPrecondition",
    "skfac_precondition": "SKFACPrecondition",
    "check_step": "CheckStep",
    "momentum_step": "MomentumStep",
    "block_split_refresh": "BlockSplitRefresh",
    "sherman_morrison_refresh": "ShermanMorrisonRefresh",
    "trace_restricted_refresh": "TraceRestrictedRefresh",
    "skfac_refresh": "SKFACRefresh",
    "eigenbasis_refresh": "EigenbasisRefresh",
}
