"""Every method of the package with options that let a short run reach all of its branches."""

from __future__ import annotations

from typing import Any

import ms_kfac

INTERVALS = {"factor_interval": 1, "inverse_interval": 2}

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "KFAC": (ms_kfac.KFAC, INTERVALS),
    "TKFAC": (ms_kfac.TKFAC, INTERVALS),
    "TKFAC automatic": (ms_kfac.TKFAC, {"damping_mode": "automatic", **INTERVALS}),
    "SMKFAC": (ms_kfac.SMKFAC, {"full_refreshes": 1, "rescale": "trace", **INTERVALS}),
    "SKFAC": (ms_kfac.SKFAC, INTERVALS),
    "EKFAC": (ms_kfac.EKFAC, INTERVALS),
    "SPNGD": (ms_kfac.SPNGD, {"similarity": 1e6}),
    "THOR": (ms_kfac.THOR, {"split": 16, **INTERVALS}),
}
