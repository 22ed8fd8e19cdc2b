r"""K-FAC: natural gradient with Kronecker-factored curvature."""

from __future__ import annotations

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.kronecker import KroneckerBlock
from ms_kfac.optim.base import SecondOrderOptimizer


class KFAC(SecondOrderOptimizer):
    r"""K-FAC for dense layers and KFC for convolutions, as an ``nn.Optimizer``.

    PLACEHOLDER
    """

    method = "kfac"

    def create_block(self, layer: Layer) -> KroneckerBlock:
        """K-FAC's Kronecker block of a layer.

        Args:
            layer: the layer.

        Returns:
            Its block.
        """
        return KroneckerBlock(
            layer,
            prefix=self.method,
            sharing=self.sharing,
            mean_reduction=self.mean_reduction,
            gradient_scale=self.gradient_scale,
        )
