"""Chooses each layer's curvature block, by a pattern on its name or by its kind."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Callable, Union

from mindspore import nn

from ms_kfac.capture.discover import Objection
from ms_kfac.capture.layer import OTHER, Layer
from ms_kfac.capture.normalization import KIND as NORMALIZATION
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.curvature.embedding import EmbeddingBlock
from ms_kfac.curvature.kronecker import KroneckerBlock
from ms_kfac.curvature.unit_wise import UnitWiseBlock
from ms_kfac.optim.options import check_patterns

FIRST_ORDER = "first_order"
# Stands for dense layers, convolutions and registered kinds that are not named.
DEFAULT = "default"
_KINDS = (DEFAULT, "dense", "convolution", "embedding", NORMALIZATION, OTHER)

# Called with the layer, `prefix`, `options` and `period`.
BlockFactory = Callable[..., CurvatureBlock]
Blocks = Mapping[str, Union[BlockFactory, str]]


def with_default(block: BlockFactory, blocks: Blocks | None) -> Blocks:
    """The option ``blocks`` with a method's own block as the default.

    Args:
        block: makes the block of a layer that the option does not name.
        blocks: the option.

    Returns:
        A mapping in which what the option says comes first.

    Raises:
        TypeError: if the option is no mapping.
    """
    return {DEFAULT: block, **_checked_mapping(blocks)}


class BlockChoice:
    """The option ``blocks``, completed by K-FAC's defaults.

    Args:
        blocks: from kinds of layers, or regular expressions on names, to what makes a block, or to
            "first_order".
        normalization: "unit_wise" or "first_order", for normalization layers that ``blocks`` does not name.
        damping_split: "pi" or "none", for the blocks of K-FAC's defaults.
        kinds: the kinds of the network's layers; a key that is one of them is no pattern.

    Attributes:
        patterns: the regular expressions among the keys.
        serves_lone_parameters: whether Parameters outside all layers have blocks.

    Raises:
        TypeError: if the option is no mapping from strings, or a value makes no block.
        ValueError: if a pattern is no regular expression.
    """

    def __init__(
        self, blocks: Blocks | None, normalization: str, damping_split: str, kinds: Collection[str]
    ) -> None:
        own = _checked_mapping(blocks)
        for key, value in own.items():
            if not _makes_a_block(value):
                raise TypeError(
                    f"blocks[{key!r}] must be a subclass of CurvatureBlock, a function that makes one, or "
                    f"{FIRST_ORDER!r}, got {value!r}"
                )
        self.blocks: dict[str, BlockFactory | str] = {
            DEFAULT: partial(KroneckerBlock, damping_split=damping_split),
            "embedding": partial(EmbeddingBlock, damping_split=damping_split),
            OTHER: FIRST_ORDER,
            **({NORMALIZATION: UnitWiseBlock} if normalization == "unit_wise" else {}),
            **own,
        }
        self.patterns = check_patterns("blocks", [key for key in own if key not in {*_KINDS, *kinds}])
        self.serves_lone_parameters = self.blocks[OTHER] != FIRST_ORDER

    def first_order_patterns(self) -> list[str]:
        """The patterns that leave layers, and lone Parameters, first-order."""
        return [pattern for pattern in self.patterns if self.blocks[pattern] == FIRST_ORDER]

    def key(self, layer: Layer) -> str:
        """The key that decides for a layer.

        Args:
            layer: the layer.

        Returns:
            The first pattern that is found in its name, else its kind, else "default". For a lone Parameter
            "other".
        """
        if layer.kind != OTHER:
            for pattern in self.patterns:
                if re.search(pattern, layer.name):
                    return pattern
        return layer.kind if layer.kind in self.blocks or layer.kind == NORMALIZATION else DEFAULT

    def objection(self, layer: Layer) -> Objection | None:
        """Why a layer stays first-order.

        Args:
            layer: a layer that could be preconditioned.

        Returns:
            The reason, and whether this option asked for it; None where the layer has a block.
        """
        key = self.key(layer)
        if key not in self.blocks:
            return "normalization='first_order' (normalization='unit_wise' preconditions it)", False
        return (f"blocks[{key!r}] is {FIRST_ORDER!r}", True) if self.blocks[key] == FIRST_ORDER else None

    def create(self, layer: Layer, **arguments: Any) -> CurvatureBlock:
        """Make a layer's block.

        Args:
            layer: a layer to which there is no objection.
            **arguments: what every block is made with.

        Returns:
            The block.

        Raises:
            TypeError: if what was made is no block, or an incomplete one.
        """
        key = self.key(layer)
        factory: Any = self.blocks[key]
        try:
            block = factory(layer, **arguments)
        except TypeError as error:
            raise TypeError(f"blocks[{key!r}]: {error}") from error
        if not isinstance(block, CurvatureBlock):
            raise TypeError(f"blocks[{key!r}] must make a CurvatureBlock, made {block!r}")
        block.check_complete()
        return block


def _makes_a_block(value: Any) -> bool:
    if isinstance(value, type):
        return issubclass(value, CurvatureBlock)
    return value == FIRST_ORDER or (callable(value) and not isinstance(value, nn.Cell))


def _checked_mapping(blocks: Any) -> Blocks:
    if blocks is None:
        return {}
    if not isinstance(blocks, Mapping) or not all(isinstance(key, str) for key in blocks):
        raise TypeError(
            "blocks must be a dict from kinds of layers, or regular expressions on their names, to what "
            f"makes a block, got {blocks!r}"
        )
    return blocks
