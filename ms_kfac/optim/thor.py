r"""THOR: K-FAC with block-diagonal factors and trace-based refreshes of the inverses."""

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
from ms_kfac.optim.options import check_interval, check_options
from ms_kfac.refresh import RefreshPolicy, TraceChange
from ms_kfac.values import check_number


class THOR(SecondOrderOptimizer):
    r"""K-FAC with block-diagonal factors whose inverses are refreshed per layer, based on the trace.

    Every ``inverse_interval`` steps, the optimizer compares the trace of each layer with the trace at its
    last refresh. Let r be the relative change (:class:`ms_kfac.TraceChange`):

    * above :math:`\omega_1`, the inverse is refreshed;
    * below :math:`\omega_2`, the layer is never refreshed again;
    * in between, the layer keeps its inverse.

    Factors are split into diagonal blocks of ``split`` rows, and only these blocks are inverted. The last
    block holds the remaining rows without padding (Chen et al. 2021, "THOR, Trace-based Hardware-driven
    Layer-Oriented Natural Gradient Descent Computation").

    As in :class:`ms_kfac.KFAC`, the damping is split between the factors, statistics are moving averages, and
    biases enter as a homogeneous coordinate. ``mindspore.nn.thor`` has none of the three. A grouped
    convolution has one small pair of factors per group, which is not split.

    Args:
        network: the network to train.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        omega1: :math:`\omega_1`, not negative. Default: 0.01.
        omega2: :math:`\omega_2` in [0, :math:`\omega_1`]. With 0, refreshes of a layer never stop. Default:
            0.0.
        split: maximum size of a diagonal block. Default: 128.
        inverse_interval: number of steps between trace comparisons after a warm-up
            (:class:`ms_kfac.WarmUpInterval`), or a policy that depends on the step only. A
            :class:`ms_kfac.TraceChange` replaces ``omega1`` and ``omega2``. Default: 100.
        damping_split: as in :class:`ms_kfac.KFAC`. Default: "pi".
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: the other options of :class:`ms_kfac.KFAC`.

    Raises:
        TypeError: if an option is unknown or has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU, GPU (native kernels or the fallback).

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
    """Create the THOR block of a layer; grouped convolutions get the K-FAC block.

    Args:
        layer: the layer.
        split: maximum size of a diagonal block.
        **arguments: the constructor arguments that all blocks share.

    Returns:
        The block.
    """
    if layer.groups > 1:
        return KroneckerBlock(layer, **arguments)
    return BlockSplitBlock(layer, split=split, **arguments)
