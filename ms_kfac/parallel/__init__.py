"""Curvature work distributed over the ranks of a data-parallel run."""

from ms_kfac.parallel.assignment import place
from ms_kfac.parallel.distribution import Distribution
from ms_kfac.parallel.network_consistency import average_moving_statistics
from ms_kfac.parallel.traffic import Collective, LayerSize, Traffic, plan

__all__ = ["Collective", "Distribution", "LayerSize", "Traffic", "average_moving_statistics", "place", "plan"]
