"""Damping: the split between two Kronecker factors, and adaptation."""

from ms_kfac.damping.levenberg_marquardt import LevenbergMarquardt
from ms_kfac.ops.refresh.factored_tikhonov import pi_split

__all__ = ["LevenbergMarquardt", "pi_split"]
