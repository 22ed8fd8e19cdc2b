r"""SMKFAC: K-FAC with rank-one updates of its inverses."""

from __future__ import annotations

from functools import partial
from typing import Any

from mindspore import nn

from ms_kfac.curvature.sherman_morrison import ShermanMorrisonBlock
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.block_choice import Blocks, with_default
from ms_kfac.optim.options import check_interval, check_options
from ms_kfac.refresh import RefreshPolicy


class SMKFAC(SecondOrderOptimizer):
    r"""K-FAC with Sherman-Morrison updates of the inverses, as an ``nn.Optimizer``.

    The first k refreshes of the inverses are full refreshes, as in :class:`ms_kfac.KFAC`. Each later refresh
    is

    .. math::
        A^{-1} \leftarrow A^{-1} - \frac{(A^{-1} u)(A^{-1} u)^{\top}}{1 / \alpha + u^{\top} A^{-1} u}, \qquad
        u_i = \sqrt{A_{ii}}

    where :math:`A_{ii}` is the moving average of the diagonal of A; the update of G is the same with
    :math:`\beta` (Liu, Gao & Wang 2021, "K-FAC Algorithm Based on Sherman-Morrison Formula", equations 6 to
    8). In this phase statistics hold the diagonals only: no covariance is formed and nothing is factorized.

    Every rank-one update adds to the factor that the inverse represents. ``damping`` enters in full refreshes
    only. ``full_refresh_interval`` repeats the full refresh periodically.

    Args:
        network: the network to train; as in :class:`ms_kfac.KFAC`.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        full_refreshes: k, at least 1. Refreshes that the warm-up of ``inverse_interval`` adds are full and do
            not count. Default: 10.
        alpha: :math:`\alpha` in (0, inf), the weight of A's updates. Default: 0.1.
        beta: :math:`\beta` in (0, inf), the weight of G's updates. Default: 0.1.
        rescale: "none" for the form printed in the paper. "trace" scales the factors that the inverses
            represent to the traces of the current damped factors;
            :class:`ms_kfac.curvature.sherman_morrison.ShermanMorrisonBlock` derives it. It magnifies
            directions outside the updates by up to :math:`(1 + \alpha m)(1 + \beta m)` after m updates. Use
            it with ``full_refresh_interval`` and the KL clip. Default: "none".
        full_refresh_interval: number of rank-one updates between full refreshes, at least 1. From the last of
            these updates on, full statistics are accumulated from scratch. Default: None, never.
        inverse_interval: as in :class:`ms_kfac.KFAC`. Default: 100.
        damping_split: as in :class:`ms_kfac.KFAC`, for full refreshes. Default: "pi".
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: the other options of :class:`ms_kfac.KFAC`.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of the scaled loss with respect to ``parameters``.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU, GPU (native kernels or the fallback).

    Examples:
        >>> import mindspore as ms
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(8, 16, activation="relu"), nn.Dense(16, 4))
        >>> optimizer = ms_kfac.SMKFAC(net, learning_rate=0.1, damping=0.03, full_refreshes=5)
        >>> model = ms.Model(net, nn.CrossEntropyLoss(), optimizer)
    """

    method = "smkfac"

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *positional: Any,
        full_refreshes: int = 10,
        alpha: float = 0.1,
        beta: float = 0.1,
        rescale: str = "none",
        full_refresh_interval: int | None = None,
        inverse_interval: int | RefreshPolicy = 100,
        damping_split: str = "pi",
        blocks: Blocks | None = None,
        **options: Any,
    ) -> None:
        full_refreshes, alpha, beta, rescale, full_refresh_interval, damping_split = check_options(
            "smkfac",
            full_refreshes=full_refreshes,
            alpha=alpha,
            beta=beta,
            rescale=rescale,
            full_refresh_interval=full_refresh_interval,
            damping_split=damping_split,
        )
        policy = check_interval("inverse_interval", inverse_interval)
        block = partial(
            ShermanMorrisonBlock,
            full_refreshes=full_refreshes + policy.warm_up_refreshes,
            weights=(alpha, beta),
            rescale=rescale == "trace",
            interval=full_refresh_interval,
            damping_split=damping_split,
        )
        blocks = with_default(block, blocks)
        super().__init__(
            network,
            learning_rate,
            *positional,
            inverse_interval=policy,
            blocks=blocks,
            damping_split=damping_split,
            **options,
        )
