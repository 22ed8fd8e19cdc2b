"""Damping: the split between two Kronecker factors, schedules and adaptation."""

from ms_kfac.damping.levenberg_marquardt import LevenbergMarquardt
from ms_kfac.damping.schedule import Damping, DampingSchedule
from ms_kfac.ops.refresh.factored_tikhonov import pi_split

__all__ = ["Damping", "DampingSchedule", "LevenbergMarquardt", "pi_split"]
