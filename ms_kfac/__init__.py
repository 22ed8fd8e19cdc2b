"""Second-order optimizers for MindSpore."""

from ms_kfac import _numpy_version  # noqa: F401 - before MindSpore is imported

# isort: split

from ms_kfac import curvature, kernels, optim, parallel
from ms_kfac._version import __version__
from ms_kfac.capture import register_layer
from ms_kfac.damping import LevenbergMarquardt
from ms_kfac.kernels.requirement import check_requirement
from ms_kfac.optim import *  # noqa: F403 - one list of the methods' classes is enough
from ms_kfac.optim.adam import AdamW
from ms_kfac.refresh import (
    FixedInterval,
    IntervalSchedule,
    OnNewStatistics,
    RefreshPolicy,
    StaleStatistics,
    TraceChange,
    WarmUpInterval,
)
from ms_kfac.statistics.nonfinite import NonFiniteError
from ms_kfac.train import CurvatureMonitor, FoundSettings, Model, TrainOneStepCell, find_settings

__all__ = [
    *optim.__all__,
    "AdamW",
    "CurvatureMonitor",
    "FixedInterval",
    "FoundSettings",
    "IntervalSchedule",
    "LevenbergMarquardt",
    "Model",
    "NonFiniteError",
    "OnNewStatistics",
    "RefreshPolicy",
    "StaleStatistics",
    "TraceChange",
    "TrainOneStepCell",
    "WarmUpInterval",
    "__version__",
    "curvature",
    "find_settings",
    "kernels",
    "parallel",
    "register_layer",
]

check_requirement()
