"""Statistics: staged by backward passes, verified against the gradient, committed by the optimizer step."""

from ms_kfac.statistics.statistic import Statistic

__all__ = ["Statistic"]
