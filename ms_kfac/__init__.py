"""Second-order optimizers for MindSpore."""

from ms_kfac import kernels, parallel
from ms_kfac._version import __version__
from ms_kfac.damping import LevenbergMarquardt
from ms_kfac.kernels.requirement import check_requirement
from ms_kfac.optim import EKFAC, KFAC, SKFAC, SMKFAC, SPNGD, THOR, TKFAC
from ms_kfac.refresh import (
    FixedInterval,
    IntervalSchedule,
    OnNewStatistics,
    RefreshPolicy,
    StaleStatistics,
    TraceChange,
)
from ms_kfac.train import Model, TrainOneStepCell

__all__ = [
    "EKFAC",
    "KFAC",
    "SKFAC",
    "SMKFAC",
    "SPNGD",
    "THOR",
    "TKFAC",
    "FixedInterval",
    "IntervalSchedule",
    "LevenbergMarquardt",
    "Model",
    "OnNewStatistics",
    "RefreshPolicy",
    "StaleStatistics",
    "TraceChange",
    "TrainOneStepCell",
    "__version__",
    "kernels",
    "parallel",
]

check_requirement()
