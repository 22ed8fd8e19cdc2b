r"""SKFAC: K-FAC on single-batch statistics, with low-rank (Woodbury) inverses."""

from __future__ import annotations

from functools import partial
from typing import Any

from mindspore import nn

from ms_kfac.curvature.skfac import SKFACBlock
from ms_kfac.ops.statistics.skfac_statistics import SKFACOptions
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.block_choice import Blocks, with_default
from ms_kfac.optim.options import check_options


class SKFAC(SecondOrderOptimizer):
    r"""SKFAC for dense layers and convolutions, as an ``nn.Optimizer``.

    One step on the gradients of the mean loss, with :math:`D = \sqrt\lambda`:

    .. math::
        U_l = (G_l + D I)^{-1} dW_l (A_l + D I)^{-1}

    The trust region, weight decay and momentum follow as in :class:`ms_kfac.KFAC`. A and G are statistics of
    one batch. If a batch contributes R < d rows to a factor of dimension d,

    .. math::
        (D I + X^{\top} X)^{-1} = \frac1D \left[ I - X^{\top} (D I_R + X X^{\top})^{-1} X \right]

    and only the R x R matrix is decomposed. Otherwise the d x d factor has a Cholesky decomposition. From the
    first step on, :meth:`summary` shows which form each factor has. Reference: Tang et al. 2021, "SKFAC:
    Training Neural Networks with Faster Kronecker-Factored Approximate Curvature".

    For convolutions the locations are first reduced to one row, or to ``samples`` rows, per sample:

    * "sum": :math:`\bar p = \sum_t p_t`, :math:`\hat g = \sum_t g_t`, averages over samples.
    * "mean": means over the T locations on both sides. Each factor is then :math:`T^2` times smaller than
      with "sum" and the same :math:`\lambda` easily outweighs it. :math:`\lambda / T^4` damps as much as
      :math:`\lambda` with "sum". U is :math:`T^4` times larger, which the trust region compensates.
    * "subsample": s random locations per sample, the same for both factors, drawn at each refresh of the
      statistics: :math:`A = \frac{T}{N s} \sum p p^{\top}`, :math:`G = \frac1{N s} \sum g g^{\top}`, unbiased
      estimates of :class:`ms_kfac.KFAC`'s factors, equal to them from :math:`s = T` on.

    Dense layers on (N, T, d) follow ``sharing``: "expand" gives N T rows, "reduce" gives N.

    Compilation of the first training step fixes the rank of each factor: the rows of that batch times
    ``accumulation_steps``. Smaller batches later are exact. A larger batch is truncated to the rows that fit,
    with a warning. If there are more micro-batches than ``accumulation_steps``, the newest rows that fit are
    kept.

    Args:
        network: the network to train.
        learning_rate: float, iterable, Tensor or LearningRateSchedule, as in ``mindspore.nn.Momentum``.
        spatial: "sum", "mean" or "subsample", for convolutions. Default: "sum".
        samples: locations per sample for "subsample", at least 1. Default: 4.
        damping_split: "none" for :math:`D = \sqrt\lambda` on both sides; "pi" for :math:`\pi \sqrt\lambda` on
            A and :math:`\sqrt\lambda / \pi` on G as in :class:`ms_kfac.KFAC`. With spatial="sum" A is up to
            :math:`T^2` times the A of a single location. If :math:`\sqrt\lambda` is below the float32
            rounding error of A, only "pi" keeps the decomposition defined. Embedding tables always have the
            K-FAC block with "pi". Default: "none".
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: the other options of :class:`ms_kfac.KFAC`. ``factor_decay`` has no effect on dense layers
            and convolutions: there is no moving average, and each batch of statistics replaces the previous
            one. It applies to the other blocks: embedding tables, unit-wise normalization and
            ``blocks["other"]``. ``sharing`` applies to dense layers and embedding tables; ``spatial``
            replaces it for convolutions.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of the scaled loss with respect to ``parameters``.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU, GPU (native kernels or the fallback).

    Examples:
        >>> import mindspore as ms
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(784, 256, activation="relu"), nn.Dense(256, 10))
        >>> optimizer = ms_kfac.SKFAC(net, learning_rate=0.1, damping=0.03)
        >>> model = ms.Model(net, nn.CrossEntropyLoss(), optimizer)
    """

    method = "skfac"

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *positional: Any,
        spatial: str = "sum",
        samples: int = 4,
        damping_split: str = "none",
        blocks: Blocks | None = None,
        **options: Any,
    ) -> None:
        spatial, samples, damping_split = check_options(
            "skfac", spatial=spatial, samples=samples, damping_split=damping_split
        )
        skfac = SKFACOptions(spatial, samples)
        block = partial(SKFACBlock, skfac=skfac, damping_split=damping_split)
        super().__init__(network, learning_rate, *positional, blocks=with_default(block, blocks), **options)
        self.skfac_options, self._splits = skfac, damping_split == "pi"

    def _described(self, preconditioned: int) -> str:
        skfac = self.skfac_options
        spatial = f"{skfac.spatial!r}" + (f" of {skfac.samples}" if skfac.spatial == "subsample" else "")
        split = ", damping split by pi" if self._splits else ""
        return f"{super()._described(preconditioned)[:-1]}, spatial {spatial}{split}, no moving average)"
