r"""THOR: inverses that are refreshed where the trace has moved, of diagonal blocks alone."""

from __future__ import annotations

from functools import partial
from typing import Any

from mindspore import nn

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.curvature.block_split import BlockSplitBlock
from ms_kfac.curvature.kronecker import KroneckerBlock
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.block_choice import Blocks, with_default
from ms_kfac.optim.options import check_interval, check_number, check_options
from ms_kfac.refresh import RefreshPolicy, TraceChange


class THOR(SecondOrderOptimizer):
    r"""K-FAC with inverses refreshed layer by layer as their traces move, of diagonal blocks alone.

    At every look (``inverse_interval``) a layer's relative change of trace r since its last refresh decides:
    above :math:`\omega_1` its inverse is refreshed, below :math:`\omega_2` the layer is refreshed no more, in
    between it keeps its inverse (:class:`ms_kfac.TraceChange`). Factors are cut into diagonal blocks of
    ``split`` rows, the last one of its true size, and only those are inverted (Chen et al. 2021, "THOR,
    Trace-based Hardware-driven Layer-Oriented Natural Gradient Descent Computation").

    The damping is split between the factors as in :class:`ms_kfac.KFAC`, statistics have its moving average,
    and biases their homogeneous coordinate; ``mindspore.nn.thor`` has none of the three. Factors of grouped
    convolutions, one small pair a group, are not split.

    Args:
        network: the network to train.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        omega1: :math:`\omega_1`, not negative. Default: 0.01.
        omega2: :math:`\omega_2` in [0, :math:`\omega_1`]; 0 never stops a layer. Default: 0.0.
        split: largest size of a diagonal block. Default: 128.
        inverse_interval: steps from one look at the traces to the next after a warm-up
            (:class:`ms_kfac.WarmUpInterval`), or a policy that decides by the step; a
            :class:`ms_kfac.TraceChange` replaces ``omega1`` and ``omega2``. Default: 100.
        damping_split: as in :class:`ms_kfac.KFAC`. Default: "pi".
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: the other options of :class:`ms_kfac.KFAC`.

    Raises:
        TypeError: if an option is unknown or has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU. GPU with fallback operators: not run on a GPU yet.

    Examples:
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(8, 16, activation="relu"), nn.Dense(16, 4))
        >>> optimizer = ms_kfac.THOR(net, learning_rate=0.1, damping=0.03, omega2=0.001)
    """

    method = "thor"

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *positional: Any,
        omega1: float = 0.01,
        omega2: float = 0.0,
        split: int = 128,
        inverse_interval: int | RefreshPolicy = 100,
        damping_split: str = "pi",
        blocks: Blocks | None = None,
        **options: Any,
    ) -> None:
        omega1, split, damping_split = check_options(
            "thor", omega1=omega1, split=split, damping_split=damping_split
        )
        omega2 = check_number("omega2", omega2, low=0.0, high=omega1)
        policy = check_interval("inverse_interval", inverse_interval)
        if not isinstance(policy, TraceChange):
            policy = TraceChange(omega1, omega2, interval=policy)
        block = partial(split_block, split=split, damping_split=damping_split)
        super().__init__(
            network,
            learning_rate,
            *positional,
            inverse_interval=policy,
            blocks=with_default(block, blocks),
            damping_split=damping_split,
            **options,
        )


def split_block(layer: Layer, *, split: int = 128, **arguments: Any) -> CurvatureBlock:
    """THOR's block of a layer: split, or K-FAC's for a grouped convolution.

    Args:
        layer: the layer.
        split: largest size of a diagonal block.
        **arguments: what every block is made with.

    Returns:
        The block.
    """
    if layer.groups > 1:
        return KroneckerBlock(layer, **arguments)
    return BlockSplitBlock(layer, split=split, **arguments)
