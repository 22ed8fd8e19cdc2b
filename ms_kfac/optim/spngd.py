r"""SP-NGD: K-FAC with adaptive refresh intervals per statistic and unit-wise normalization layers."""

from __future__ import annotations

from typing import Any

from mindspore import nn

from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.options import check_options
from ms_kfac.refresh import OnNewStatistics, RefreshPolicy, StaleStatistics


class SPNGD(SecondOrderOptimizer):
    r"""K-FAC with a separate, adaptive refresh interval for every statistic of every layer.

    A and G of each layer are refreshed at intervals that grow while they stay similar
    (:class:`ms_kfac.StaleStatistics`). An inverse is recomputed whenever a statistic of its layer is
    refreshed (:class:`ms_kfac.OnNewStatistics`). Normalization layers have unit-wise blocks (Osawa et al.
    2020, "Scalable and Practical Natural Gradient for Large-Scale Deep Learning").

    Two more defaults differ from :class:`ms_kfac.KFAC`: ``factor_decay=0.0``, because the paper compares and
    uses statistics of single batches, and ``normalization="unit_wise"``. With small batches
    ``factor_decay=0.95`` is less noisy; similarity then compares the averages.

    Args:
        network: the network to train.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        similarity: :math:`\alpha`: two statistics are similar if the Frobenius norm of their difference is
            below :math:`\alpha` times the norm of the earlier one. Default: 0.1.
        factor_interval: None for :class:`ms_kfac.StaleStatistics` with ``similarity``; an int or a policy
            replaces it. Default: None.
        inverse_interval: None for :class:`ms_kfac.OnNewStatistics`; an int or a policy replaces it. Default:
            None.
        factor_decay: :math:`\epsilon` of the moving averages in [0, 1). Default: 0.0.
        normalization: "unit_wise" or "first_order", for normalization layers without an entry in
            ``blocks``. Default: "unit_wise".
        **options: the other options of :class:`ms_kfac.KFAC`.

    Raises:
        TypeError: if an option is unknown or has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU, GPU (native kernels or the fallback).

    Examples:
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> optimizer = ms_kfac.SPNGD(net, learning_rate=0.1, damping=0.03)
    """

    method = "spngd"

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *positional: Any,
        similarity: float = 0.1,
        factor_interval: int | RefreshPolicy | None = None,
        inverse_interval: int | RefreshPolicy | None = None,
        factor_decay: float = 0.0,
        normalization: str = "unit_wise",
        **options: Any,
    ) -> None:
        (similarity,) = check_options("spngd", similarity=similarity)
        if factor_interval is None:
            factor_interval = StaleStatistics(similarity)
        if inverse_interval is None:
            inverse_interval = OnNewStatistics()
        super().__init__(
            network,
            learning_rate,
            *positional,
            factor_interval=factor_interval,
            inverse_interval=inverse_interval,
            factor_decay=factor_decay,
            normalization=normalization,
            **options,
        )
