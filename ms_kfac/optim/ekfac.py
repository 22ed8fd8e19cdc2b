r"""EKFAC: K-FAC's eigenbasis with the gradient's own second moments."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import nn, ops

from ms_kfac.curvature.eigenbasis import EigenbasisBlock
from ms_kfac.ops.statistics.layer_statistics import CORRECTED_EIGENVALUES
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.block_choice import Blocks, with_default
from ms_kfac.optim.options import refuse_option


class EKFAC(SecondOrderOptimizer):
    r"""K-FAC with corrected eigenvalues, as an ``nn.Optimizer``.

    .. math::
        U_l = Q_G \left[\frac{Q_G^{\top} dW_l Q_A}{s + \lambda}\right] Q_A^{\top}, \qquad
        s = E_n\left[(Q_G^{\top} dW_n Q_A)^2\right]

    with the eigenvectors of K-FAC's factors A and G and the gradients :math:`dW_n` of the single samples
    (George et al. 2018, "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis"). The
    damping :math:`\lambda` is added to s itself; there is no split.

    ``factor_interval`` is the interval of the batches that enter A, G and s; ``inverse_interval`` is that of
    the basis. Second moments hold in the basis in which they were measured, so the order of a step is: use
    what is there, then recompute the basis when due. The step after takes second moments in the new basis
    even where no statistics are due. Only at the very first step the basis comes first, with K-FAC's
    eigenvalues. So from the second step on every update uses true second moments: of the step itself in a
    basis one step old when both intervals are 1.

    A layer with several locations a sample (a convolution, a dense layer on :math:`(N, T, d)`) needs the
    gradients of the samples one by one when s is measured: :math:`N d_{out} d_{in}` numbers, twice.

    Args:
        network: the network to train; as in :class:`ms_kfac.KFAC`.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: all other options of :class:`ms_kfac.KFAC` but ``damping_split``. ``sharing`` sets how
            locations enter A and G, and so the basis; s is of whole gradients in both settings.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of ``parameters``, of the loss as scaled.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range.

    Platforms: CPU.

    Examples:
        >>> import mindspore as ms
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(8, 16, activation="relu"), nn.Dense(16, 4))
        >>> optimizer = ms_kfac.EKFAC(net, learning_rate=0.1, damping=0.03)
        >>> model = ms.Model(net, nn.CrossEntropyLoss(), optimizer)
    """

    method = "ekfac"
    corrects_eigenvalues = True

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *positional: Any,
        blocks: Blocks | None = None,
        **options: Any,
    ) -> None:
        refuse_option(options, "damping_split", "EKFAC adds the damping to the second moments themselves")
        blocks = with_default(EigenbasisBlock, blocks)
        super().__init__(network, learning_rate, *positional, blocks=blocks, **options)
        gates = self.statistics_schedule.gates
        distinct = list(dict.fromkeys(gates))
        # Of every gate the blocks with a basis; where several share one they are refreshed together.
        self.bases = tuple(
            tuple(
                index
                for index, block in enumerate(self.blocks)
                if gates[index] is gate and isinstance(block, EigenbasisBlock)
            )
            for gate in distinct
        )
        self.cast = ops.Cast()

    def refresh_inverses(self) -> bool:
        """Compute the first basis, without which there is no first update."""
        return self.inverse_schedule(self.global_step, self.cast(self.global_step == 0, ms.int32))

    def finish_step(self) -> bool:
        """Recompute the basis where the policy says so, now that its second moments have been used."""
        return self.inverse_schedule(self.global_step, self.cast(self.global_step > 0, ms.int32))

    def prepare_statistics(self) -> bool:
        """Set the gates for the next step; a new basis needs second moments in any case."""
        self.statistics_schedule(self.global_step)
        for gate in range(len(self.bases)):
            bases = self.bases[gate]
            if len(bases) > 0:
                pending = self.statistics_schedule.pending[gate]
                fresh = self.cast(self.blocks[bases[0]].fresh, ms.int32)
                self.assign(pending, pending + fresh * CORRECTED_EIGENVALUES)
            for index in bases:
                self.assign(self.blocks[index].fresh, self.blocks[index].fresh * 0.0)
        return True
