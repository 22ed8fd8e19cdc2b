"""Normalisation layers: batch, layer, group and instance normalisation of ``nn`` and ``mint.nn``, and scales.

``nn.BatchNorm3d`` is supported through the ``nn.BatchNorm2d`` that it contains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import mint, nn

from ms_kfac.capture.attach import TappedConstructInTraining
from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.channels_last import FromChannelsLast
from ms_kfac.ops.statistics.normalized_inputs import (
    BatchNormalizedInputs,
    ChannelColumns,
    ChannelRows,
    GroupNormalizedInputs,
    LayerNormalizedInputs,
    RootMeanSquareInputs,
)
from ms_kfac.ops.statistics.projections import NormalizationProjections
from ms_kfac.ops.statistics.unit_wise_statistics import UnitWiseSecondMoment

KIND = "normalization"


@dataclass(frozen=True)
class NormalizationOperators(LayerOperators):
    """Operators of a normalisation. A subclass gives the normalised inputs.

    Attributes:
        shape: shape of gamma.
    """

    shape: tuple[int, ...]

    def geometry(
        self,
        moments: str,
        *,
        epsilon: float = 0.0,
        centered: bool = True,
        channels_last: bool = False,
        channel_groups: int = 1,
    ) -> dict[str, Any]:
        """Attributes of the native kernel (``kernels/interface/normalization_geometry.h``).

        Args:
            moments: what shares a mean and a variance: a channel of the "batch", a "group" of channels of a
                sample, all channels of a "position", or "none".
            epsilon: the constant added to the variance. Default: 0.
            centered: False to divide by the root mean square. Default: True.
            channels_last: whether the layer's input has channels last. Default: False.
            channel_groups: number of groups of channels with common moments. Default: 1.

        Returns:
            The attributes.
        """
        return {
            "moments": moments,
            "epsilon": epsilon,
            "centered": centered,
            "channels_last": channels_last,
            "channel_groups": channel_groups,
            "shape": list(self.shape),
            "bias": self.bias,
        }

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelColumns() if self.channels_first else ChannelRows(int(np.prod(self.shape)))

    def second_moment(self) -> nn.Cell:
        return UnitWiseSecondMoment(positions_axis=2 if self.channels_first else 1)

    def projections(self) -> nn.Cell:
        return NormalizationProjections(
            self.activations(False),
            self.gradients(False),
            self.shape,
            bias=self.bias,
            columns=self.channels_first,
        )


@dataclass(frozen=True)
class BatchNormOperators(NormalizationOperators):
    """Operators of a batch normalisation. They give columns.

    Attributes:
        epsilon: the constant added to the variance.
    """

    epsilon: float

    channels_first = True

    def activations(self, reduce: bool) -> nn.Cell:
        return BatchNormalizedInputs(self.epsilon)

    def native_geometry(self) -> dict[str, Any]:
        return self.geometry("batch", epsilon=self.epsilon)


@dataclass(frozen=True)
class ChannelsLastBatchNormOperators(BatchNormOperators):
    """Operators of a batch normalisation in the layout NHWC. They give columns."""

    def activations(self, reduce: bool) -> nn.Cell:
        return FromChannelsLast(super().activations(reduce))

    def gradients(self, reduce: bool) -> nn.Cell:
        return FromChannelsLast(super().gradients(reduce))

    def native_geometry(self) -> dict[str, Any]:
        return self.geometry("batch", epsilon=self.epsilon, channels_last=True)


@dataclass(frozen=True)
class GroupNormOperators(NormalizationOperators):
    """Operators of a group or instance normalisation. They give columns.

    Attributes:
        epsilon: the constant added to the variance.
        channel_groups: number of groups of channels with common moments.
    """

    epsilon: float
    channel_groups: int

    channels_first = True

    def activations(self, reduce: bool) -> nn.Cell:
        return GroupNormalizedInputs(self.epsilon, self.channel_groups)

    def native_geometry(self) -> dict[str, Any]:
        return self.geometry("group", epsilon=self.epsilon, channel_groups=self.channel_groups)


@dataclass(frozen=True)
class LayerNormOperators(NormalizationOperators):
    """Operators of a layer normalisation. They give rows.

    Attributes:
        epsilon: the constant added to the variance.
    """

    epsilon: float

    def activations(self, reduce: bool) -> nn.Cell:
        return LayerNormalizedInputs(self.epsilon, int(np.prod(self.shape)))

    def native_geometry(self) -> dict[str, Any]:
        return self.geometry("position", epsilon=self.epsilon, channels_last=True)


@dataclass(frozen=True)
class ScaleOperators(NormalizationOperators):
    r"""Operators of a scale of the last axes, :math:`y = \gamma \hat x [+ \beta]`. They give rows.

    Attributes:
        epsilon: that of RMSNorm, :math:`\hat x = x / \sqrt{\mathrm{mean}(x^2) + \epsilon}`. None for
            :math:`\hat x = x`, as in LayerScale.
    """

    epsilon: float | None

    def activations(self, reduce: bool) -> nn.Cell:
        return RootMeanSquareInputs(self.epsilon, int(np.prod(self.shape)))

    def native_geometry(self) -> dict[str, Any]:
        if self.epsilon is None:
            return self.geometry("none", channels_last=True)
        return self.geometry("position", epsilon=self.epsilon, centered=False, channels_last=True)


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in parameter.shape)


def _layer(name: str, cell: Any, operators: LayerOperators, *, only_in_training: bool = False) -> Layer:
    # ``nn`` names them gamma and beta, ``mint.nn`` weight and bias.
    named = "gamma" if hasattr(cell, "gamma") else "weight"
    return Layer(
        name=name,
        kind=KIND,
        cell=cell,
        weight=getattr(cell, named),
        bias=cell.beta if named == "gamma" else cell.bias,
        operators=operators,
        router=TappedConstructInTraining if only_in_training else None,
    )


@register_layer(nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
def describe_batch_norm(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.BatchNorm1d``, ``nn.BatchNorm2d`` or ``nn.SyncBatchNorm``.

    Args:
        name: the cell's name in the network.
        cell: the cell.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``, moving moments
        instead of the batch's, or moments of several devices.
    """
    base: Any = next(c for c in (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm) if isinstance(cell, c))
    if overrides_construct(cell, base):
        return f"it overrides the construct of {base.__name__}"
    if cell.use_batch_statistics is False:
        return "use_batch_statistics=False (unit-wise statistics need inputs normalised by their batch)"
    if getattr(cell, "is_global", False):
        return _OF_DEVICES
    kind = BatchNormOperators if cell.format == "NCHW" else ChannelsLastBatchNormOperators
    operators = kind(bias=True, epsilon=float(cell.eps), shape=_shape(cell.gamma))
    return _layer(name, cell, operators, only_in_training=cell.use_batch_statistics is None)


_OF_DEVICES = "its moments are those of several devices (unit-wise statistics need the moments of one)"
_MINT_BATCH_NORMS: tuple[Any, ...] = (
    mint.nn.BatchNorm1d,
    mint.nn.BatchNorm2d,
    mint.nn.BatchNorm3d,
    mint.nn.SyncBatchNorm,
)


@register_layer(*_MINT_BATCH_NORMS)
def describe_mint_batch_norm(name: str, cell: Any) -> Layer | str:
    """Describe a batch normalisation of ``mint.nn``.

    Args:
        name: the cell's name in the network.
        cell: the cell.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``, or moments of
        several devices.
    """
    base = next(cls for cls in _MINT_BATCH_NORMS if isinstance(cell, cls))
    if overrides_construct(cell, base):
        return f"it overrides the construct of {base.__name__}"
    if getattr(cell, "world_size", 1) > 1:
        return _OF_DEVICES
    if not cell.affine:
        return "it has no parameters"
    operators = BatchNormOperators(bias=True, epsilon=float(cell.eps), shape=_shape(cell.weight))
    return _layer(name, cell, operators, only_in_training=cell.track_running_stats)


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
    operators = LayerNormOperators(bias=True, epsilon=float(cell.epsilon), shape=_shape(cell.gamma))
    return _layer(name, cell, operators)


@register_layer(mint.nn.LayerNorm)
def describe_mint_layer_norm(name: str, cell: Any) -> Layer | str:
    """Describe a ``mint.nn.LayerNorm``.

    Args:
        name: the cell's name in the network.
        cell: a ``mint.nn.LayerNorm``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``.
    """
    if overrides_construct(cell, mint.nn.LayerNorm):
        return "it overrides the construct of LayerNorm"
    if not cell.elementwise_affine:
        return "it has no parameters"
    bias = cell.bias is not None
    return _layer(
        name, cell, LayerNormOperators(bias=bias, epsilon=float(cell.eps), shape=_shape(cell.weight))
    )


@register_layer(nn.GroupNorm, mint.nn.GroupNorm)
def describe_group_norm(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.GroupNorm`` or ``mint.nn.GroupNorm``.

    Args:
        name: the cell's name in the network.
        cell: the cell.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``.
    """
    base: Any = nn.GroupNorm if isinstance(cell, nn.GroupNorm) else mint.nn.GroupNorm
    if overrides_construct(cell, base):
        return "it overrides the construct of GroupNorm"
    operators = GroupNormOperators(
        bias=True, epsilon=float(cell.eps), shape=(cell.num_channels,), channel_groups=cell.num_groups
    )
    return _layer(name, cell, operators)


_INSTANCE_NORMS: tuple[Any, ...] = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@register_layer(*_INSTANCE_NORMS)
def describe_instance_norm(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.InstanceNorm1d``, ``nn.InstanceNorm2d`` or ``nn.InstanceNorm3d``.

    Args:
        name: the cell's name in the network.
        cell: the cell.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``.
    """
    base = next(cls for cls in _INSTANCE_NORMS if isinstance(cell, cls))
    if overrides_construct(cell, base):
        return f"it overrides the construct of {base.__name__}"
    channels = cell.num_features
    operators = GroupNormOperators(
        bias=True, epsilon=float(cell.eps), shape=(channels,), channel_groups=channels
    )
    return _layer(name, cell, operators)
