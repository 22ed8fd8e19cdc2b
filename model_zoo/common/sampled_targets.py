"""Samples targets from a network's predictions, for `fisher: sampled`.

The Fisher matrix is an expectation over targets drawn from the model's distribution (Martens and Grosse 2015,
section 2.2). The loss defines that distribution: categorical for softmax cross-entropy, one Bernoulli
variable per pixel for sigmoid cross-entropy. Sampled targets are bool, unlike data targets.
"""

from __future__ import annotations

import mindspore.nn as nn
from mindspore import Tensor, ops

from model_zoo.common.options.networks import METRIC_OF_NETWORK
from ms_kfac.train import CounterBasedRNG


class ClassSampler(nn.Cell):
    r"""Samples a class per image or position from softmax(logits): :math:`\arg\max_c (z_c - \log e_c)`.

    The :math:`e_c` are exponentially distributed.

    Args:
        draws: the random number generator.
    """

    def __init__(self, draws: CounterBasedRNG) -> None:
        """Stores the generator."""
        super().__init__()
        self.draws = draws

    def construct(self, logits: Tensor) -> Tensor:
        """Maps logits (N, ..., classes) to bools of the same shape, one true per row."""
        scores = logits - ops.log(-ops.log(self.draws(logits.shape)))
        return ops.arange(logits.shape[-1]) == scores.argmax(-1).expand_dims(-1)


class PixelSampler(nn.Cell):
    r"""Samples each pixel as 1 with probability sigmoid(logit): :math:`z + \log u - \log(1 - u) > 0`.

    Args:
        draws: the random number generator.
    """

    def __init__(self, draws: CounterBasedRNG) -> None:
        """Stores the generator."""
        super().__init__()
        self.draws = draws

    def construct(self, logits: Tensor) -> Tensor:
        """Maps logits (N, P) to bools of the same shape."""
        uniform = self.draws(logits.shape)
        return logits + ops.log(uniform) - ops.log(1.0 - uniform) > 0


def create_target_sampler(network_name: str, rank: int = 0) -> nn.Cell:
    """Creates the target sampler of a zoo network; its state is a Parameter and is saved in checkpoints.

    Args:
        network_name: its name in a recipe.
        rank: the rank of this process; each rank samples from its own stream.

    Returns:
        A cell from logits to bools.
    """
    draws = CounterBasedRNG(stream=rank)
    pixels = METRIC_OF_NETWORK[network_name] == "reconstruction_error"
    return PixelSampler(draws) if pixels else ClassSampler(draws)
