r"""SMKFAC: K-FAC with rank-one updates of its inverses."""

from __future__ import annotations

from functools import partial
from typing import Any

from mindspore import nn

from ms_kfac.curvature.sherman_morrison import ShermanMorrisonBlock
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.block_choice import Blocks, with_default
from ms_kfac.optim.options import check_options


class SMKFAC(SecondOrderOptimizer):
    r"""K-FAC by the Sherman-Morrison formula, as an ``nn.Optimizer``.

    The first k refreshes of the inverses are :class:`ms_kfac.KFAC`'s. Each later one is

    .. math::
        A^{-1} \leftarrow A^{-1} - \frac{(A^{-1} u)(A^{-1} u)^{\top}}{1 / \alpha + u^{\top} A^{-1} u}, \qquad
        u_i = \sqrt{A_{ii}}

    with the moving average of A's diagonal, which is all that the statistics still take, and likewise for G
    with :math:`\beta` (Liu, Gao & Wang 2021, "K-FAC Algorithm Based on Sherman-Morrison Formula", equations 6
    to 8). Nothing is factorized then and no covariance is formed.

    Every update adds to the factor that an inverse stands for, and ``damping`` has entered by the full
    refreshes alone. ``full_refresh_interval`` makes a refresh full now and then.

    Args:
        network: the network to train; as in :class:`ms_kfac.KFAC`.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        full_refreshes: k, at least 1. Default: 10.
        alpha: :math:`\alpha` in (0, inf), the weight of A's updates. Default: 0.1.
        beta: :math:`\beta` in (0, inf), the weight of G's updates. Default: 0.1.
        rescale: "none" for the printed form; "trace" scales the factors that the inverses stand for to the
            traces of the present damped factors
            (:class:`ms_kfac.curvature.sherman_morrison.ShermanMorrisonBlock` derives it). Directions outside
            the updates are then magnified by up to :math:`(1 + \alpha m)(1 + \beta m)` after m updates: take
            it with ``full_refresh_interval`` and the KL clip. Default: "none".
        full_refresh_interval: number of rank-one updates after which one refresh is full again, at least 1.
            Statistics are full, and begin anew, from the last of those updates on. Default: None, never.
        damping_split: as in :class:`ms_kfac.KFAC`, for full refreshes. Default: "pi".
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: all other options of :class:`ms_kfac.KFAC`.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of ``parameters``, of the loss as scaled.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU. GPU with fallback operators: not run on a GPU yet.

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
        block = partial(
            ShermanMorrisonBlock,
            full_refreshes=full_refreshes,
            weights=(alpha, beta),
            rescale=rescale == "trace",
            interval=full_refresh_interval,
            damping_split=damping_split,
        )
        blocks = with_default(block, blocks)
        super().__init__(
            network, learning_rate, *positional, blocks=blocks, damping_split=damping_split, **options
        )
