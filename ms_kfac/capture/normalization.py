"""Batch and layer normalisation: ``nn.BatchNorm1d``, ``nn.BatchNorm2d`` and ``nn.LayerNorm``.

``nn.BatchNorm3d`` holds an ``nn.BatchNorm2d`` that does its work, and is met as that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import nn

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.ops.normalized_inputs import (
    BatchNormalizedInputs,
    ChannelColumns,
    ChannelRows,
    LayerNormalizedInputs,
)
from ms_kfac.ops.unit_wise_statistics import UnitWiseSecondMoment

KIND = "normalization"
BATCH_NORM_CLASSES = (nn.BatchNorm1d, nn.BatchNorm2d)
LAYER_NORM_CLASSES = (nn.LayerNorm,)


@dataclass(frozen=True)
class BatchNormOperators(LayerOperators):
    """Columns of a batch normalisation.

    Attributes:
        epsilon: what is added to the variance.
    """

    epsilon: float

    channels_first = True

    def activations(self, reduce: bool) -> nn.Cell:
        return BatchNormalizedInputs(self.epsilon)

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelColumns()

    def second_moment(self) -> nn.Cell:
        return UnitWiseSecondMoment(positions_axis=2)


@dataclass(frozen=True)
class LayerNormOperators(LayerOperators):
    """Rows of a layer normalisation.

    Attributes:
        epsilon: what is added to the variance.
        channels: size of all normalised axes together.
    """

    epsilon: float
    channels: int

    def activations(self, reduce: bool) -> nn.Cell:
        return LayerNormalizedInputs(self.epsilon, self.channels)

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelRows(self.channels)

    def second_moment(self) -> nn.Cell:
        return UnitWiseSecondMoment(positions_axis=1)


def describe_batch_norm(name: str, cell: nn.Cell) -> Layer | str:
    """The layer, or why it can't be preconditioned.

    Args:
        name: the cell's name in the network.
        cell: an instance of one of ``BATCH_NORM_CLASSES``.

    Returns:
        The layer, or a reason: a ``construct`` of its own, the NHWC layout, or moving statistics in the place
        of the batch's.
    """
    base = next(cls for cls in BATCH_NORM_CLASSES if isinstance(cell, cls))
    if overrides_construct(cell, base):
        return f"a construct of its own in the place of {base.__name__}'s"
    if cell.format != "NCHW":
        return f"data format {cell.format} (only NCHW is supported)"
    if cell.use_batch_statistics is False:
        return "use_batch_statistics=False: unit-wise statistics are of inputs normalised by their batch"
    return _layer(name, cell, BatchNormOperators(bias=True, epsilon=float(cell.eps)))


def describe_layer_norm(name: str, cell: nn.Cell) -> Layer | str:
    """The layer, or why it can't be preconditioned.

    Args:
        name: the cell's name in the network.
        cell: an instance of one of ``LAYER_NORM_CLASSES``.

    Returns:
        The layer, or a reason: a ``construct`` of its own, gamma and beta on other axes than the normalised
        ones, or normalisation across samples.
    """
    if overrides_construct(cell, nn.LayerNorm):
        return "a construct of its own in the place of LayerNorm's"
    if cell.begin_norm_axis != cell.begin_params_axis:
        return (
            f"begin_norm_axis {cell.begin_norm_axis} and begin_params_axis {cell.begin_params_axis} differ "
            "(only gamma and beta on the normalised axes are supported)"
        )
    if cell.begin_norm_axis == 0:
        return "begin_norm_axis 0 normalises across samples"
    channels = int(np.prod(cell.gamma.shape))
    return _layer(name, cell, LayerNormOperators(bias=True, epsilon=float(cell.epsilon), channels=channels))


def _layer(name: str, cell: Any, operators: LayerOperators) -> Layer:
    return Layer(
        name=name,
        kind=KIND,
        cell=cell,
        weight=cell.gamma,
        bias=cell.beta,
        groups=1,
        operators=operators,
        primitive="",
        overridden=False,
    )
