r"""Spatial sub-sampling: a few random output locations of a convolution stand for all of them."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class LocationSampling(nn.Cell):
    r"""Draw s of T locations a sample, without replacement, and gather their columns.

    A sum over the drawn columns times :math:`T / s` is an unbiased estimate of the sum over all T (Tang et
    al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate Curvature", spatial
    subsampling). Drawn without replacement s = T gives that sum itself.

    Args:
        samples: s. From s = T on there is nothing to draw.
        stream: a number that tells apart the operators which one seed of ``mindspore.set_seed`` serves.

    Inputs:
        - **columns** (Tensor) - shape :math:`(N, d, T)`, or :math:`(N, g, d, T)` for g groups, float32.
        - **locations** (Tensor) - what :meth:`draw` returned.

    Outputs:
        Tensor, shape :math:`(N, d, s)` or :math:`(N, g, d, s)`, float32.

    Platforms: CPU, GPU, Ascend (composed of StandardNormal, TopK and GatherD). Draws anew at every call; what
    ``mindspore.set_seed`` said when the operator was created decides the numbers.
    """

    def __init__(self, samples: int, stream: int = 1) -> None:
        super().__init__(auto_prefix=False)
        seed = ms.get_seed()
        self.samples = samples
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        # Two zeros ask for numbers that differ from run to run.
        self.random = ops.StandardNormal(*((0, 0) if seed is None else (seed, stream)))
        self.top = ops.TopK(sorted=False)
        self.gather = ops.GatherD()

    def draw(self, batch: int, locations: int) -> Tensor:
        """Indices (batch, s) of distinct locations: the places of the s largest of T random numbers."""
        _, indices = self.top(self.random((batch, locations)), self.samples)
        return indices

    def construct(self, columns: Tensor, locations: Tensor) -> Tensor:
        shape = self.shape(columns)
        ones = (1,) * (len(shape) - 2)
        indices = self.reshape(locations, (shape[0], *ones, self.samples))
        return self.gather(columns, -1, ops.broadcast_to(indices, (*shape[:-1], self.samples)))
