"""Which curvature block a layer gets: by a pattern on its name, or by its kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable, Union

from ms_kfac.capture.discover import Objection
from ms_kfac.capture.layer import Layer
from ms_kfac.capture.lone_parameter import KIND as OTHER
from ms_kfac.capture.normalization import KIND as NORMALIZATION
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.curvature.embedding import EmbeddingBlock
from ms_kfac.curvature.kronecker import KroneckerBlock
from ms_kfac.curvature.unit_wise import UnitWiseBlock
from ms_kfac.optim.options import check_patterns

FIRST_ORDER = "first_order"
# What a layer gets whose kind is not named.
DEFAULT = "default"
_KINDS = (DEFAULT, "dense", "convolution", "embedding", NORMALIZATION, OTHER)

# Called as a block is made: with the layer, `prefix`, `options` and `period`.
BlockFactory = Callable[..., CurvatureBlock]
Blocks = Mapping[str, Union[BlockFactory, str]]


def with_default(block: BlockFactory, blocks: Blocks | None) -> Blocks:
    """A method's own block, under what the option ``blocks`` says.

    Args:
        block: makes the block of every layer that nothing else is said of.
        blocks: the option.

    Returns:
        Both.

    Raises:
        TypeError: if the option is no mapping.
    """
    return {DEFAULT: block, **_checked_mapping(blocks)}


class BlockChoice:
    """The option ``blocks``, with what K-FAC does where it is silent.

    Args:
        blocks: from kinds of layers, or regular expressions on names, to what makes a block, or to
            "first_order".
        normalization: "unit_wise" or "first_order", for normalization layers of which ``blocks`` says
            nothing.

    Attributes:
        patterns: the regular expressions among the keys.
        takes_others: whether Parameters outside all layers have blocks.

    Raises:
        TypeError: if the option is no mapping from strings, or a value makes no block.
        ValueError: if a pattern is no regular expression.
    """

    def __init__(self, blocks: Blocks | None, normalization: str) -> None:
        own = _checked_mapping(blocks)
        for key, value in own.items():
            if value != FIRST_ORDER and not callable(value):
                raise TypeError(
                    f"blocks[{key!r}] must be a subclass of CurvatureBlock, a function that makes one, or "
                    f"{FIRST_ORDER!r}, got {value!r}"
                )
        self.blocks: dict[str, BlockFactory | str] = {
            DEFAULT: KroneckerBlock,
            "embedding": EmbeddingBlock,
            OTHER: FIRST_ORDER,
            **({NORMALIZATION: UnitWiseBlock} if normalization == "unit_wise" else {}),
            **own,
        }
        self.patterns = check_patterns("blocks", [key for key in own if key not in _KINDS])
        self.takes_others = self.blocks[OTHER] != FIRST_ORDER

    def key(self, layer: Layer) -> str:
        """The key that decides of a layer.

        Args:
            layer: the layer.

        Returns:
            The first pattern that is found in its name, else its kind, else "default".
        """
        if layer.kind != OTHER:
            for pattern in self.patterns:
                if pattern == layer.kind or re.search(pattern, layer.name):
                    return pattern
        return layer.kind if layer.kind in self.blocks or layer.kind == NORMALIZATION else DEFAULT

    def objection(self, layer: Layer) -> Objection | None:
        """Why a layer stays first-order.

        Args:
            layer: a layer that could be preconditioned.

        Returns:
            The reason, and whether it was asked for by name; None where the layer has a block.
        """
        key = self.key(layer)
        if key not in self.blocks:
            return "normalization='first_order' (normalization='unit_wise' preconditions it)", False
        return (f"blocks[{key!r}] is {FIRST_ORDER!r}", True) if self.blocks[key] == FIRST_ORDER else None

    def create(self, layer: Layer, **arguments: Any) -> CurvatureBlock:
        """Make a layer's block.

        Args:
            layer: the layer, of which there is no objection.
            **arguments: what every block is made with.

        Returns:
            The block.

        Raises:
            TypeError: if what was made is no block, or an incomplete one.
        """
        key = self.key(layer)
        factory: Any = self.blocks[key]
        block = factory(layer, **arguments)
        if not isinstance(block, CurvatureBlock):
            raise TypeError(f"blocks[{key!r}] must make a CurvatureBlock, made {block!r}")
        block.check_complete()
        return block


def _checked_mapping(blocks: Any) -> Blocks:
    if blocks is None:
        return {}
    if not isinstance(blocks, Mapping) or not all(isinstance(key, str) for key in blocks):
        raise TypeError(
            "blocks must be a dict from kinds of layers, or regular expressions on their names, to what "
            f"makes a block, got {blocks!r}"
        )
    return blocks
