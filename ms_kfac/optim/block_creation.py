"""Creation of an optimizer's curvature blocks, and what its step asks of a block."""

from __future__ import annotations

from collections.abc import Sequence

from ms_kfac.capture.layer import OTHER, Layer
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from ms_kfac.optim.block_choice import BlockChoice


def create_blocks(
    layers: Sequence[Layer],
    choice: BlockChoice,
    *,
    owner: str,
    prefix: str,
    options: StatisticsOptions,
    period: int,
    used_before_refresh: bool,
    sampled: bool,
) -> list[CurvatureBlock]:
    """Create the block of each layer.

    Args:
        layers: the layers without an objection, also Parameters outside layers.
        choice: the option ``blocks``.
        owner: the optimizer's class name, for messages.
        prefix: prefix of the names of the optimizer's Parameters.
        options: how the statistics are taken.
        period: number of announced micro-batches.
        used_before_refresh: whether the optimizer's step can use a block before it is refreshed.
        sampled: whether targets are drawn from the model.

    Returns:
        The blocks.

    Raises:
        TypeError: if a block doesn't fit the optimizer's step, or stages too little or too much for a
            Parameter outside layers.
        ValueError: if a Parameter outside layers has a block, and targets are drawn from the model.
    """
    blocks: list[CurvatureBlock] = []
    for layer in layers:
        lone = layer.kind == OTHER
        block = choice.create(
            layer, prefix=f"{prefix}.{OTHER}" if lone else prefix, options=options, period=period
        )
        if block.used_before_refresh and not used_before_refresh:
            raise TypeError(
                f"blocks: {type(block).__name__} must be used before it is refreshed. The step of EKFAC "
                f"does this, the step of {owner} doesn't"
            )
        if lone and sampled:
            raise ValueError(
                f"blocks[{choice.key(layer)!r}] must be 'first_order' with fisher='sampled': the "
                f"gradient of {layer.name}, which is outside all layers, comes from the labels"
            )
        if lone and len(block.staged) != 2:
            raise TypeError(
                f"blocks[{OTHER!r}]: the block's staged must be a batch and the record, got "
                f"{len(block.staged)} Parameters"
            )
        blocks.append(block)
    return blocks
