"""When to refresh: policies, the schedules that implement them, and the gate of the taps."""

from ms_kfac.refresh.fixed_interval import FixedInterval
from ms_kfac.refresh.gate import Gate
from ms_kfac.refresh.interval_schedule import IntervalSchedule
from ms_kfac.refresh.new_statistics import OnNewStatistics
from ms_kfac.refresh.policy import RefreshPolicy
from ms_kfac.refresh.stale_statistics import StaleStatistics
from ms_kfac.refresh.statistics_schedule import ScheduleOptions
from ms_kfac.refresh.trace_change import TraceChange
from ms_kfac.refresh.warm_up_interval import WarmUpInterval

__all__ = [
    "FixedInterval",
    "Gate",
    "IntervalSchedule",
    "OnNewStatistics",
    "RefreshPolicy",
    "ScheduleOptions",
    "StaleStatistics",
    "TraceChange",
    "WarmUpInterval",
]
