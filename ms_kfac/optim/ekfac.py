r"""EKFAC: second moments of the gradient in the eigenbasis of K-FAC."""

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

    where :math:`Q_A` and :math:`Q_G` hold the eigenvectors of K-FAC's factors and :math:`dW_n` is the
    gradient of sample n (George et al. 2018, "Fast Approximate Natural Gradient Descent in a
    Kronecker-factored Eigenbasis"). The damping :math:`\lambda` is added to s directly, without a split.

    ``factor_interval`` sets when batches enter A, G and s. ``inverse_interval`` sets when the basis is
    recomputed. Second moments are valid only in the basis in which they were measured. Each step therefore
    first uses the present basis and recomputes it afterwards, when due. The next step measures second moments
    in the new basis even if no statistics are due. The first step is the exception: it computes the basis
    first and uses K-FAC's eigenvalues. From the second step on, every update uses true second moments. With
    both intervals at 1 they come from the same step, in a basis that is one step old.

    A layer with several locations per sample (a convolution, a dense layer on :math:`(N, T, d)`) needs
    per-sample gradients to measure s: :math:`N d_{out} d_{in}` numbers, twice.

    Args:
        network: the network to train; as in :class:`ms_kfac.KFAC`.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: the other options of :class:`ms_kfac.KFAC`, except ``damping_split``. ``sharing`` sets how
            locations enter A and G, and thereby the basis. s uses whole gradients in both settings.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of the scaled loss with respect to ``parameters``.

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
        # Blocks with a basis, grouped by gate. Blocks that share a gate are refreshed together.
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
        """Compute the first basis, which the first update needs."""
        return self.inverse_schedule(self.global_step, self.cast(self.global_step == 0, ms.int32))

    def finish_step(self) -> bool:
        """Recompute the basis when due, after the step has used its second moments."""
        return self.inverse_schedule(self.global_step, self.cast(self.global_step > 0, ms.int32))

    def prepare_statistics(self) -> bool:
        """Set the gates for the next step; a new basis always requests second moments."""
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
