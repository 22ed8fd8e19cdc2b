r"""SKFAC: K-FAC of one batch, inverted through the batch's rank."""

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

    then trust region, weight decay and momentum as in :class:`ms_kfac.KFAC`. A and G are those of one
    batch. Where a batch brings R < d rows to a factor of dimension d,

    .. math::
        (D I + X^{\top} X)^{-1} = \frac1D \left[ I - X^{\top} (D I_R + X X^{\top})^{-1} X \right]

    and only the R x R matrix is decomposed; otherwise the factor goes through its own Cholesky
    decomposition. :meth:`summary` says which, from the first step on. (Tang et al. 2021, "SKFAC: Training
    Neural Networks with Faster Kronecker-Factored Approximate Curvature".)

    For convolutions the locations are first reduced to one row a sample, or to ``samples`` rows:

    * "sum": :math:`\bar p = \sum_t p_t`, :math:`\hat g = \sum_t g_t`, averages over samples.
    * "mean": means over the T locations on both sides. Each factor is then :math:`T^2` times smaller than
      with "sum" and the same :math:`\lambda` easily outweighs it: :math:`\lambda / T^4` damps as much as
      :math:`\lambda` does with "sum". U comes out :math:`T^4` times larger, which the trust region undoes.
    * "subsample": s random locations a sample, the same for both factors, drawn at each refresh of the
      statistics: :math:`A = \frac{T}{N s} \sum p p^{\top}`, :math:`G = \frac1{N s} \sum g g^{\top}`, unbiased
      estimates of :class:`ms_kfac.KFAC`'s factors, equal to them from :math:`s = T` on.

    Dense layers on (N, T, d) follow ``sharing``; with "expand" they bring N T rows, with "reduce" N.

    The rank of each factor is settled when the first training step is compiled, by that step's batch times
    ``accumulation_steps``. Smaller batches later are exact. Of larger ones as many rows as have room stand
    for the batch, with a warning. Micro-batches that ``accumulation_steps`` does not announce leave the
    newest rows that have room.

    Args:
        network: the network to train.
        learning_rate: float, iterable, Tensor or LearningRateSchedule, as in ``mindspore.nn.Momentum``.
        spatial: "sum", "mean" or "subsample", for convolutions. Default: "sum".
        samples: locations a sample for "subsample", at least 1. Default: 4.
        damping_split: "none" for :math:`D = \sqrt\lambda` on both sides; "pi" for :math:`\pi \sqrt\lambda` on
            A and :math:`\sqrt\lambda / \pi` on G as in :class:`ms_kfac.KFAC`. With spatial="sum" A is up to
            :math:`T^2` times a location's: where :math:`\sqrt\lambda` is below float32's rounding of it,
            only "pi" keeps the decomposition defined. Embedding tables have K-FAC's block with "pi"
            whatever is said here. Default: "none".
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        options: those of :class:`ms_kfac.KFAC`, by keyword. ``factor_decay`` is accepted and means nothing:
            there is no moving average, each batch of statistics replaces the one before. ``sharing`` concerns
            dense layers only.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of ``parameters``, of the loss as scaled.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU. GPU with fallback operators: not run on a GPU yet.

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

    def __repr__(self) -> str:
        skfac = self.skfac_options
        spatial = f"{skfac.spatial!r}" + (f" of {skfac.samples}" if skfac.spatial == "subsample" else "")
        split = ", damping split by pi" if self._splits else ""
        return f"{super().__repr__()[:-1]}, spatial {spatial}{split}, no moving average)"
