"""Batch and layer normalisation: ``nn.BatchNorm1d``, ``nn.BatchNorm2d`` and ``nn.LayerNorm``.

``nn.BatchNorm3d`` is supported through the ``nn.BatchNorm2d`` that it contains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import nn

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.normalized_inputs import (
    BatchNormalizedInputs,
    ChannelColumns,
    ChannelRows,
    LayerNormalizedInputs,
)
from ms_kfac.ops.statistics.projections import NormalizationProjections
from ms_kfac.ops.statistics.unit_wise_statistics import UnitWiseSecondMoment

KIND = "normalization"


@dataclass(frozen=True)
class BatchNormOperators(LayerOperators):
    """Operators of a batch normalisation. They give columns.

    Attributes:
        epsilon: the constant added to the variance.
        channels: number of channels.
    """

    epsilon: float
    channels: int

    channels_first = True

    def activations(self, reduce: bool) -> nn.Cell:
        return BatchNormalizedInputs(self.epsilon)

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelColumns()

    def second_moment(self) -> nn.Cell:
        return UnitWiseSecondMoment(positions_axis=2)

    def projections(self) -> nn.Cell:
        return NormalizationProjections(
            self.activations(False), self.gradients(False), (self.channels,), columns=True
        )


@dataclass(frozen=True)
class LayerNormOperators(LayerOperators):
    """Operators of a layer normalisation. They give rows.

    Attributes:
        epsilon: the constant added to the variance.
        shape: sizes of the normalised axes.
    """

    epsilon: float
    shape: tuple[int, ...]

    def activations(self, reduce: bool) -> nn.Cell:
        return LayerNormalizedInputs(self.epsilon, int(np.prod(self.shape)))

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelRows(int(np.prod(self.shape)))

    def second_moment(self) -> nn.Cell:
        return UnitWiseSecondMoment(positions_axis=1)

    def projections(self) -> nn.Cell:
        return NormalizationProjections(
            self.activations(False), self.gradients(False), self.shape, columns=False
        )


@register_layer(nn.BatchNorm1d, nn.BatchNorm2d)
def describe_batch_norm(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.BatchNorm1d`` or ``nn.BatchNorm2d``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.BatchNorm1d`` or ``nn.BatchNorm2d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``, the NHWC layout,
        or moving moments instead of the batch's.
    """
    base: Any = nn.BatchNorm1d if isinstance(cell, nn.BatchNorm1d) else nn.BatchNorm2d
    if overrides_construct(cell, base):
        return f"it overrides the construct of {base.__name__}"
    if cell.format != "NCHW":
        return f"data format {cell.format} (only NCHW is supported)"
    if cell.use_batch_statistics is False:
        return "use_batch_statistics=False (unit-wise statistics need inputs normalised by their batch)"
    channels = int(cell.gamma.size)
    return _layer(name, cell, BatchNormOperators(bias=True, epsilon=float(cell.eps), channels=channels))


@register_layer(nn.LayerNorm)
def describe_layer_norm(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.LayerNorm``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.LayerNorm``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``, gamma and beta
        not on the normalised axes, or normalisation across samples.
    """
    if overrides_construct(cell, nn.LayerNorm):
        return "it overrides the construct of LayerNorm"
    if cell.begin_norm_axis != cell.begin_params_axis:
        return (
            f"begin_norm_axis {cell.begin_norm_axis} and begin_params_axis {cell.begin_params_axis} differ "
            "(only gamma and beta on the normalised axes are supported)"
        )
    if cell.begin_norm_axis == 0:
        return "begin_norm_axis 0 normalises across samples"
    shape = tuple(int(size) for size in cell.gamma.shape)
    return _layer(name, cell, LayerNormOperators(bias=True, epsilon=float(cell.epsilon), shape=shape))


def _layer(name: str, cell: Any, operators: LayerOperators) -> Layer:
    return Layer(
        name=name,
        kind=KIND,
        cell=cell,
        weight=cell.gamma,
        bias=cell.beta,
        operators=operators,
    )
