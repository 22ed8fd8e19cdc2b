"""Every method of the package with options that let a short run reach all of its branches."""

from __future__ import annotations

from typing import Any

import ms_kfac
from ms_kfac.optim.methods import METHODS as REGISTERED


def fixed_intervals(factor_interval: int, inverse_interval: int) -> dict[str, Any]:
    """Intervals without a warm-up."""
    return {
        "factor_interval": ms_kfac.FixedInterval(factor_interval),
        "inverse_interval": ms_kfac.FixedInterval(inverse_interval),
    }


INTERVALS = fixed_intervals(1, 2)

# By class; the others take the intervals alone.
_OPTIONS: dict[str, dict[str, Any]] = {
    "SMKFAC": {"full_refreshes": 1, "rescale": "trace", **INTERVALS},
    "SPNGD": {"similarity": 1e6},
    "THOR": {"split": 16, **INTERVALS},
}
# More of a class, named after it.
_VARIANTS: dict[str, dict[str, Any]] = {"TKFAC automatic": {"damping_mode": "automatic", **INTERVALS}}

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    name: (getattr(ms_kfac, name.split()[0]), options)
    for name, options in {
        **{method.class_name: INTERVALS for method in REGISTERED.values()},
        **_OPTIONS,
        **_VARIANTS,
    }.items()
}
