"""Damping: its split over two Kronecker factors, its schedules, its adaptation."""

from ms_kfac.damping.levenberg_marquardt import LevenbergMarquardt
from ms_kfac.damping.pi_split import pi_split
from ms_kfac.damping.schedule import Damping, DampingSchedule

__all__ = ["Damping", "DampingSchedule", "LevenbergMarquardt", "pi_split"]
