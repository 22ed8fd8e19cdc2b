"""The training cell with additional passes, a mindspore.train.Model that uses it, and callbacks."""

from ms_kfac.ops.graph.counter_based_rng import CounterBasedRNG
from ms_kfac.train.curvature_monitor import CurvatureMonitor
from ms_kfac.train.model import Model
from ms_kfac.train.one_step import TrainOneStepCell
from ms_kfac.train.progress import ProgressBar
from ms_kfac.train.settings_search import FoundSettings, find_settings

__all__ = [
    "CounterBasedRNG",
    "CurvatureMonitor",
    "FoundSettings",
    "Model",
    "ProgressBar",
    "TrainOneStepCell",
    "find_settings",
]
