"""A small classifier with its own optimizer, which shadows a training run on the same weights and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from model_zoo.common.data import mnist
from model_zoo.mlp.network import MLP


def mnist14_vectors(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training images of 14x14 MNIST.

    Args:
        data_dir: the folder of MNIST.

    Returns:
        Normalized images, float32 (60000, 196), and labels, int32 (60000,).
    """
    data = mnist.load(data_dir, side=14)
    flat = data.train.images.reshape(len(data.train.images), -1).astype(np.float32)
    return (flat - data.mean[0]) / data.deviation[0], data.train.labels.astype(np.int32)


class ShadowOptimizer:
    """196-20-20-20-10 with an optimizer that refreshes everything at every step.

    Args:
        method: the optimizer's class.
        learning_rate: 0 for a shadow that only observes.
        **options: options of the optimizer.
    """

    def __init__(self, method: Any, learning_rate: float, **options: Any) -> None:
        """Builds the network and the optimizer."""
        self.network = MLP()
        self.optimizer = method(
            self.network, learning_rate, **{"factor_interval": 1, "inverse_interval": 1, **options}
        )
        loss, network = nn.CrossEntropyLoss(), self.network

        def objective(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
            return loss(network(x), y)

        self.gradient = ms.value_and_grad(objective, None, self.optimizer.parameters)

    def copy_weights(self, network: nn.Cell) -> None:
        """Copies the weights of a network of the same architecture."""
        for mine, theirs in zip(self.network.trainable_params(), network.trainable_params()):
            ops.assign(mine, ms.Tensor(theirs.asnumpy()))

    def step(self, x: ms.Tensor, y: ms.Tensor) -> tuple[ms.Tensor, ...]:
        """Takes a step and returns its gradients."""
        _, gradients = self.gradient(x, y)
        self.optimizer(gradients)
        return tuple(gradients)

    def preconditioned(self, gradients: tuple[ms.Tensor, ...]) -> np.ndarray:
        """The preconditioned gradients as one vector, float64."""
        updates = self.optimizer.precondition(gradients)
        return np.concatenate([update.asnumpy().ravel() for update in updates]).astype(np.float64)

    def inverses(self) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """The inverses of A and G (float64) of every layer, and a scale."""
        kept = []
        for block in self.optimizer.blocks:
            inverse_A, inverse_G = (
                p.asnumpy().astype(np.float64) for p in (block.A_inverse, block.G_inverse)
            )
            scale = float(block.scale.asnumpy().item()) if hasattr(block, "scale") else 1.0
            kept.append((inverse_A, inverse_G, scale))
        return kept
