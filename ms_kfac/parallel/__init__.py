"""Curvature work shared out over the ranks of a data-parallel run."""

from ms_kfac.parallel.distribution import Distribution

__all__ = ["Distribution"]
