"""Selection of each layer's curvature block by a pattern on its name or by its kind."""

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
from ms_kfac.values import shown

FIRST_ORDER = "first_order"
NORMALIZATION_STAYS = "normalization='first_order' (normalization='unit_wise' preconditions it)"
# Covers dense layers, convolutions and registered kinds without a key.
DEFAULT = "default"
_KINDS = (DEFAULT, "dense", "convolution", "embedding", NORMALIZATION, OTHER)

# Called with the layer, `prefix`, `options` and `period`.
BlockFactory = Callable[..., CurvatureBlock]
Blocks = Mapping[str, Union[BlockFactory, str]]


def with_default(block: BlockFactory, blocks: Blocks | None) -> Blocks:
    """Add a method's block to the option ``blocks`` as the default.

    Args:
        block: creates the block of a layer without a key in the option.
        blocks: the option.

    Returns:
        A mapping in which the option takes precedence.

    Raises:
        TypeError: if the option is not a mapping.
    """
    return {DEFAULT: block, **_checked_mapping(blocks)}


class BlockChoice:
    """The option ``blocks``, completed with the defaults of K-FAC.

    Args:
        blocks: mapping from kinds of layers, or regular expressions on names, to a block factory or
            "first_order".
        normalization: "unit_wise" or "first_order", for normalization layers without a key in ``blocks``.
        damping_split: "pi" or "none", for the default blocks.
        kinds: the kinds of the network's layers. A key among them is a kind, not a pattern.

    Attributes:
        patterns: the regular expressions among the keys.
        leaves_lone_parameters: whether the option says that Parameters outside layers stay first-order.

    Raises:
        TypeError: if the option is not a mapping from strings, or a value can't create a block.
        ValueError: if a pattern is not a valid regular expression.
    """

    def __init__(
        self, blocks: Blocks | None, normalization: str, damping_split: str, kinds: Collection[str]
    ) -> None:
        own = _checked_mapping(blocks)
        for key, value in own.items():
            if not _makes_a_block(value):
                raise TypeError(
                    f"blocks[{shown(key)}] must be a subclass of CurvatureBlock, a function that returns "
                    f"one, or {FIRST_ORDER!r}, got {shown(value)}"
                )
        self.blocks: dict[str, BlockFactory | str] = {
            DEFAULT: partial(KroneckerBlock, damping_split=damping_split),
            "embedding": partial(EmbeddingBlock, damping_split=damping_split),
            OTHER: FIRST_ORDER,
            **({NORMALIZATION: UnitWiseBlock} if normalization == "unit_wise" else {}),
            **own,
        }
        self.patterns = check_patterns("blocks", [key for key in own if key not in {*_KINDS, *kinds}])
        self.leaves_lone_parameters = own.get(OTHER) == FIRST_ORDER

    def first_order_patterns(self) -> list[str]:
        """The patterns that keep layers, and Parameters outside layers, first-order."""
        return [pattern for pattern in self.patterns if self.blocks[pattern] == FIRST_ORDER]

    def key(self, layer: Layer) -> str:
        """The key that applies to a layer.

        Args:
            layer: the layer.

        Returns:
            The first pattern that matches its name, else its kind, else "default". For a Parameter outside
            layers, patterns count only if their block needs no layer, or if they keep it first-order.
        """
        for pattern in self.patterns:
            if re.search(pattern, layer.name) and (
                layer.kind != OTHER or _serves_lone(self.blocks[pattern], layer)
            ):
                return pattern
        return layer.kind if layer.kind in self.blocks or layer.kind == NORMALIZATION else DEFAULT

    def objection(self, layer: Layer) -> Objection | None:
        """Why a layer stays first-order.

        Args:
            layer: a layer that could be preconditioned.

        Returns:
            The reason, and whether ``blocks`` requests it explicitly; None if the layer has a block.
        """
        key = self.key(layer)
        if key not in self.blocks:
            return NORMALIZATION_STAYS, False
        return (f"blocks[{key!r}] is {FIRST_ORDER!r}", True) if self.blocks[key] == FIRST_ORDER else None

    def create(self, layer: Layer, **arguments: Any) -> CurvatureBlock:
        """Create a layer's block.

        Args:
            layer: a layer without an objection.
            **arguments: the constructor arguments that all blocks share.

        Returns:
            The block.

        Raises:
            TypeError: if the factory does not return a complete block.
        """
        key = self.key(layer)
        factory: Any = self.blocks[key]
        try:
            block = factory(layer, **arguments)
        except TypeError as error:
            raise TypeError(f"blocks[{key!r}]: {error}") from error
        if not isinstance(block, CurvatureBlock):
            raise TypeError(f"blocks[{key!r}] must make a CurvatureBlock, got {shown(block)}")
        block.check_complete()
        return block


def _serves_lone(value: BlockFactory | str, layer: Layer) -> bool:
    block = value.func if isinstance(value, partial) else value
    if isinstance(block, type) and issubclass(block, CurvatureBlock):
        return block.serves(layer)
    return value == FIRST_ORDER


def _makes_a_block(value: Any) -> bool:
    if isinstance(value, type):
        return issubclass(value, CurvatureBlock)
    if isinstance(value, str):
        return value == FIRST_ORDER
    return callable(value) and not isinstance(value, nn.Cell)


def _checked_mapping(blocks: Any) -> Blocks:
    if blocks is None:
        return {}
    if not isinstance(blocks, Mapping) or not all(isinstance(key, str) for key in blocks):
        raise TypeError(
            "blocks must be a dict from kinds of layers, or regular expressions on their names, to block "
            f"factories, got {shown(blocks)}"
        )
    return blocks
