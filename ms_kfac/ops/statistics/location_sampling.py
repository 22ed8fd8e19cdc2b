r"""Spatial subsampling (SKFAC): random output locations of a convolution."""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.graph.counter_based_rng import StatelessRNG


class LocationSampling(nn.Cell):
    r"""Draw s of T locations per sample, without replacement, and gather their columns.

    A sum over the drawn columns times :math:`T / s` is an unbiased estimate of the sum over all T (Tang et
    al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate Curvature", spatial
    subsampling). Because of drawing without replacement, s = T gives the exact sum.

    Args:
        samples: s. For s >= T, no draw is needed.
        stream: stream number. It distinguishes operators whose states have the same key, because they share
            the seed of ``mindspore.set_seed``. Default: 1.

    Inputs:
        - **columns** (Tensor) - shape :math:`(N, d, T)`, or :math:`(N, g, d, T)` for g groups, float32.
        - **locations** (Tensor) - the result of :meth:`draw`.

    Outputs:
        Tensor, shape :math:`(N, d, s)` or :math:`(N, g, d, s)`, float32.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, samples: int, stream: int = 1) -> None:
        super().__init__(auto_prefix=False)
        self.samples = samples
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.random = StatelessRNG(stream)
        self.top = ops.TopK(sorted=False)
        self.gather = ops.GatherD()

    def draw(self, state: Parameter, batch: int, locations: int) -> Tensor:
        """Draw distinct locations: the positions of the s largest of T random numbers.

        Args:
            state: the generator's state (:func:`ms_kfac.ops.graph.counter_based_rng.rng_state`), which each
                draw advances.
            batch: N.
            locations: T.

        Returns:
            The indices, shape (batch, s).
        """
        _, indices = self.top(self.random(state, (batch, locations)), self.samples)
        return indices

    def construct(self, columns: Tensor, locations: Tensor) -> Tensor:
        shape = self.shape(columns)
        ones = (1,) * (len(shape) - 2)
        indices = self.reshape(locations, (shape[0], *ones, self.samples))
        return self.gather(columns, -1, ops.broadcast_to(indices, (*shape[:-1], self.samples)))
