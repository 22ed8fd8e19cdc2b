"""The registry of methods: their names and method-specific options.

The package, recipes, benchmarks and tests read the methods from here. This module imports the standard
library only, so that a recipe can be checked before MindSpore is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """An option of one method.

    Attributes:
        default: the default value.
        choices: the accepted strings; empty for a number.
        single_device: the choices that do not support several devices.
        low: the lower end of a number.
        high: the upper end of a number.
        above: whether the lower end itself is rejected.
        whole: whether the number is an int.
        optional: whether None is accepted.
    """

    default: Any
    choices: tuple[str, ...] = ()
    single_device: tuple[str, ...] = ()
    low: float = 0.0
    high: float = math.inf
    above: bool = False
    whole: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Method:
    """A method: an optimizer of the package.

    Attributes:
        class_name: the optimizer's class, exported by ``ms_kfac``.
        description: a short description.
        options: the method-specific options, in the order of the constructor.
        defaults: the options shared with K-FAC that have another default.
        single_device: whether the method does not support several devices.
    """

    class_name: str
    description: str
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    single_device: bool = False


# What float32 can still square.
SQUARABLE = 1e18
# How the damping is split between a layer's two factors.
DAMPING_SPLITS = ("pi", "none")
_SPLIT = {"damping_split": Option("pi", DAMPING_SPLITS)}

# Keyed by the name in recipes, which equals the class's ``method`` and prefixes its Parameter names.
METHODS: dict[str, Method] = {
    "kfac": Method("KFAC", "Kronecker-factored curvature", _SPLIT),
    "tkfac": Method(
        "TKFAC",
        "Kronecker factors that keep the trace of the Fisher",
        {
            "damping_mode": Option("normal", ("normal", "automatic")),
            "nu": Option(1.0, above=True),
            "ema": Option("partial_trace", ("partial_trace", "paper"), single_device=("paper",)),
            "automatic_form": Option("printed", ("printed", "homogeneous")),
            "max_expansion": Option(100.0, low=1.0),
        },
    ),
    "smkfac": Method(
        "SMKFAC",
        "K-FAC whose inverses follow by rank-one updates (Sherman-Morrison)",
        {
            "full_refreshes": Option(10, low=1, whole=True),
            "alpha": Option(0.1, above=True),
            "beta": Option(0.1, above=True),
            "rescale": Option("none", ("none", "trace")),
            "full_refresh_interval": Option(None, low=1, whole=True, optional=True),
            **_SPLIT,
        },
    ),
    "skfac": Method(
        "SKFAC",
        "K-FAC of one batch, inverted through the batch's rank",
        {
            "spatial": Option("sum", ("sum", "mean", "subsample")),
            "samples": Option(4, low=1, whole=True),
            "damping_split": Option("none", DAMPING_SPLITS),
        },
        single_device=True,
    ),
    "ekfac": Method("EKFAC", "second moments in the eigenbasis of K-FAC's factors"),
    "spngd": Method(
        "SPNGD",
        "K-FAC with statistics that are taken as they go stale, and unit-wise normalization",
        {"similarity": Option(0.1, high=SQUARABLE, above=True), **_SPLIT},
        {
            "factor_interval": None,
            "inverse_interval": None,
            "factor_decay": 0.0,
            "normalization": "unit_wise",
        },
    ),
    "thor": Method(
        "THOR",
        "K-FAC of diagonal blocks, refreshed where the trace has moved",
        {
            "omega1": Option(0.01),
            "omega2": Option(0.0),
            "split": Option(128, low=1, whole=True),
            **_SPLIT,
        },
    ),
}
