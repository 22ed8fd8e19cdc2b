"""Statistics: what backward passes stage, what the step commits, and whether it belongs to the gradient."""

from ms_kfac.statistics.statistic import Statistic

__all__ = ["Statistic"]
