"""Targets drawn from a network's own predictions, for `fisher: sampled`.

The Fisher matrix is an expectation over targets of the model's distribution (Martens and Grosse 2015, section
2.2), which the loss defines: softmax cross-entropy that of one class, sigmoid cross-entropy that of a bit for
each pixel. Drawn targets are bools, so that the objective can tell them from those of the data.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor, ops

from model_zoo.common.options.networks import FIGURE_OF_NETWORK
from ms_kfac.train import CountedDraws


class DrawnClasses(nn.Cell):
    r"""One class an image, from softmax(logits): :math:`\arg\max_c (z_c - \log e_c)`, e exponential.

    Args:
        draws: the random numbers.
    """

    def __init__(self, draws: CountedDraws) -> None:
        """Draws nothing yet."""
        super().__init__()
        self.draws = draws

    def construct(self, logits: Tensor) -> Tensor:
        """Maps logits (N, classes) to bools of the same shape, one of a row true."""
        scores = logits - ops.log(-ops.log(self.draws(logits.shape)))
        return ops.arange(logits.shape[1]) == scores.argmax(1).expand_dims(1)


class DrawnPixels(nn.Cell):
    r"""A bit for each pixel, 1 with the probability sigmoid(logit): :math:`z + \log u - \log(1 - u) > 0`.

    Args:
        draws: the random numbers.
    """

    def __init__(self, draws: CountedDraws) -> None:
        """Draws nothing yet."""
        super().__init__()
        self.draws = draws

    def construct(self, logits: Tensor) -> Tensor:
        """Maps logits (N, P) to bools of the same shape."""
        uniform = self.draws(logits.shape)
        return logits + ops.log(uniform) - ops.log(1.0 - uniform) > 0


def drawn_targets(network_name: str, rank: int = 0) -> nn.Cell:
    """What draws targets for a network of the zoo; its state is a Parameter, so that a resumed run goes on.

    Args:
        network_name: its name in a recipe.
        rank: the number of this process, as each draws its own.

    Returns:
        A cell from logits to bools.
    """
    draws = CountedDraws(stream=rank)
    return DrawnClasses(draws) if FIGURE_OF_NETWORK[network_name] == "accuracy" else DrawnPixels(draws)
