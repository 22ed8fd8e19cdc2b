"""Targets drawn from a network's own predictions, for `fisher: sampled`.

The Fisher matrix is an expectation over targets of the model's distribution (Martens and Grosse 2015, section
2.2), which the loss defines: softmax cross-entropy that of one class, sigmoid cross-entropy that of a bit for
each pixel. Drawn targets are bools, so that the objective can tell them from those of the data.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor, ops

from model_zoo.common.options.networks import FIGURE_OF_NETWORK


def _log_exponential(shape: tuple[int, ...]) -> Tensor:
    # Half the sum of two squared normal variables is exponential; the half is left out, because only
    # differences count. MindSpore's uniform variables don't follow `set_seed`.
    return ops.log(ops.square(ops.standard_normal((2, *shape))).sum(0))


class DrawnClasses(nn.Cell):
    r"""One class an image, from softmax(logits): :math:`\arg\max_c (z_c - \log e_c)`, e exponential."""

    def construct(self, logits: Tensor) -> Tensor:
        """Maps logits (N, classes) to bools of the same shape, one of a row true."""
        scores = logits - _log_exponential(logits.shape)
        return ops.arange(logits.shape[1]) == scores.argmax(1).expand_dims(1)


class DrawnPixels(nn.Cell):
    r"""A bit for each pixel, 1 with the probability sigmoid(logit): :math:`z + \log e_2 - \log e_1 > 0`."""

    def construct(self, logits: Tensor) -> Tensor:
        """Maps logits (N, P) to bools of the same shape."""
        # One draw for both: in graph mode two equal calls would be one.
        noise = _log_exponential((2, *logits.shape))
        return logits + noise[1] - noise[0] > 0


def drawn_targets(network_name: str) -> nn.Cell:
    """What draws targets for a network of the zoo.

    Args:
        network_name: its name in a recipe.

    Returns:
        A cell from logits to bools.
    """
    return DrawnClasses() if FIGURE_OF_NETWORK[network_name] == "accuracy" else DrawnPixels()
