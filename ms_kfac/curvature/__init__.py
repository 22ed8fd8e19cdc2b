"""Approximations of a layer's Fisher block, one per file."""

from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.curvature.block_split import BlockSplitBlock
from ms_kfac.curvature.diagonal import DiagonalBlock
from ms_kfac.curvature.eigenbasis import EigenbasisBlock
from ms_kfac.curvature.embedding import EmbeddingBlock
from ms_kfac.curvature.kronecker import KroneckerBlock
from ms_kfac.curvature.sherman_morrison import ShermanMorrisonBlock
from ms_kfac.curvature.skfac import SKFACBlock
from ms_kfac.curvature.trace_restricted import TraceRestrictedBlock
from ms_kfac.curvature.trace_restricted_roots import TraceRestrictedRootsBlock
from ms_kfac.curvature.unit_wise import UnitWiseBlock
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from ms_kfac.ops.statistics.skfac_statistics import SKFACOptions
from ms_kfac.statistics.statistic import Statistic

__all__ = [
    "BlockSplitBlock",
    "CurvatureBlock",
    "DiagonalBlock",
    "EigenbasisBlock",
    "EmbeddingBlock",
    "KroneckerBlock",
    "SKFACBlock",
    "SKFACOptions",
    "ShermanMorrisonBlock",
    "Statistic",
    "StatisticsOptions",
    "TraceRestrictedBlock",
    "TraceRestrictedRootsBlock",
    "UnitWiseBlock",
]
