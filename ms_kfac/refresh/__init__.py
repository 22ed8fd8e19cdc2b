"""When to refresh: policies, the gate that carries their answer to the taps, and the moving average."""

from ms_kfac.refresh.fixed_interval import FixedInterval
from ms_kfac.refresh.gate import Gate
from ms_kfac.refresh.moving_average import MovingAverage
from ms_kfac.refresh.policy import RefreshPolicy

__all__ = ["FixedInterval", "Gate", "MovingAverage", "RefreshPolicy"]
