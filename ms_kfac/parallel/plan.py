"""Prediction of the K-FAC traffic for a number of ranks, from layer sizes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ms_kfac.ops.linalg.packed_triangle import packed_size
from ms_kfac.parallel.assignment import place
from ms_kfac.parallel.distribution import Distribution
from ms_kfac.parallel.gathering import pads
from ms_kfac.parallel.traffic import Collective, Traffic

_BYTES = 4


@dataclass(frozen=True)
class LayerSize:
    """Factor dimensions of a dense or convolutional layer.

    Attributes:
        dim_A: dimension of A per group, including the bias coordinate.
        dim_G: dimension of G per group.
        groups: number of groups.
        bias: whether the layer has a bias.
    """

    dim_A: int  # noqa: N815
    dim_G: int  # noqa: N815
    groups: int = 1
    bias: bool = False

    def work(self) -> float:
        """Estimate the work of inverting the factors, in multiplications up to a constant factor.

        Returns:
            The sum of the cubes of the factor dimensions, over all groups.
        """
        return float(self.groups) * (float(self.dim_A) ** 3 + float(self.dim_G) ** 3)

    def triangles(self) -> int:
        """Count the elements in the packed triangles of both factors.

        Returns:
            The number of elements, over all groups.
        """
        return self.groups * (packed_size(self.dim_A) + packed_size(self.dim_G))

    def weights(self) -> int:
        """Count the elements of the gradient.

        Returns:
            The number of elements, over all groups.
        """
        return self.groups * self.dim_A * self.dim_G


def plan(layers: Sequence[LayerSize], ranks: int, distribution: Distribution) -> Traffic:
    """Predict the traffic of K-FAC with fixed intervals, without a network or a distributed run.

    The result equals ``optimizer.traffic()`` of :class:`ms_kfac.KFAC` on the same layers.

    Args:
        layers: the preconditioned layers, in network order.
        ranks: number of ranks, at least 1.
        distribution: the exchange and the collective. ``collective="auto"`` is resolved as on a GPU.

    Returns:
        Owners and bytes.

    Raises:
        ValueError: if ``layers`` is empty or ``ranks`` is below 1.
    """
    if not layers:
        raise ValueError("plan: layers must hold at least one LayerSize, got none")
    owners = place([layer.work() for layer in layers], ranks)
    # + 2: one weight per factor. + 1 + bias: one inner product per preconditioned parameter.
    statistics, inverses, gradients = [0] * ranks, [0] * ranks, [0] * ranks
    for layer, owner in zip(layers, owners):
        statistics[owner] += layer.triangles() + 2
        inverses[owner] += layer.triangles()
        gradients[owner] += layer.weights() + 1 + int(layer.bias)
    scatters = distribution.collective == "reduce_scatter"
    scatters = scatters or (distribution.collective == "auto" and pads(statistics))
    if scatters:
        met = Collective("reduce_scatter", _BYTES * max(statistics) * ranks)
    else:
        met = Collective("all_reduce", _BYTES * sum(statistics))
    sends_inverses = distribution.exchange == "inverses"
    return Traffic(
        ranks=ranks,
        owners=owners,
        statistics=met,
        new_statistics=None,
        inverses=_gathered(inverses) if sends_inverses else None,
        gradients=None if sends_inverses else _gathered(gradients),
    )


def _gathered(sizes: Sequence[int]) -> Collective:
    if pads(sizes):
        return Collective("all_gather", _BYTES * max(sizes))
    return Collective("all_reduce", _BYTES * sum(sizes))
