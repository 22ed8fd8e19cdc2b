"""The traffic of K-FAC on a number of ranks, from the sizes of layers alone."""

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
    """A dense layer or a convolution as its factors see it.

    Attributes:
        dim_A: dimension of A for one group, with the bias's coordinate.
        dim_G: dimension of G for one group.
        groups: number of groups.
        bias: whether there is a bias.
    """

    dim_A: int  # noqa: N815
    dim_G: int  # noqa: N815
    groups: int = 1
    bias: bool = False

    def work(self) -> float:
        """Multiplications of inverting the factors, up to a factor.

        Returns:
            The sum of the cubes of their dimensions.
        """
        return float(self.groups) * (float(self.dim_A) ** 3 + float(self.dim_G) ** 3)

    def triangles(self) -> int:
        """Numbers in the triangles of both factors.

        Returns:
            That number.
        """
        return self.groups * (packed_size(self.dim_A) + packed_size(self.dim_G))

    def weights(self) -> int:
        """Numbers in the gradient.

        Returns:
            That number.
        """
        return self.groups * self.dim_A * self.dim_G


def plan(layers: Sequence[LayerSize], ranks: int, distribution: Distribution) -> Traffic:
    """What K-FAC with fixed intervals would exchange, without a network or ranks.

    It is what ``optimizer.traffic()`` says of :class:`ms_kfac.KFAC` on the same layers.

    Args:
        layers: the preconditioned layers, in the network's order.
        ranks: number of ranks, at least 1.
        distribution: what is exchanged; "auto" as its collective is taken as on a GPU.

    Returns:
        Owners and bytes.

    Raises:
        ValueError: if there is no layer or no rank.
    """
    if not layers:
        raise ValueError("plan: layers must hold at least one LayerSize, got none")
    owners = place([layer.work() for layer in layers], ranks)
    # Each factor has a weight beside it, each preconditioned parameter an inner product.
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
