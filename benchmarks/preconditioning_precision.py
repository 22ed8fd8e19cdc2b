r"""How far updates are from exact ones if the products of preconditioning are in float32 or in TF32.

    python -m benchmarks.preconditioning_precision [--steps 100]

ResNet-20 trains on the digits with K-FAC. Then, for several dampings, the inverses of its factors are
computed in float64 and rounded to float32, as the optimizer stores them. The gradient of another batch is
multiplied by them in float32, and with operands rounded to TF32 as the GPU kernels round them. NumPy does
both.

The table has the error of the whole update, of the worst layer's, and the cosine between the whole update and
the exact one. Errors are relative: :math:`\|U - U_{64}\| / \|U_{64}\|`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
from mindspore import Tensor, nn  # noqa: E402

import ms_kfac  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from model_zoo.common.data.digits import load  # noqa: E402
from model_zoo.resnet.network import ResNet  # noqa: E402

DAMPINGS = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
BATCH = 128


@dataclass(frozen=True)
class Layer:
    """A layer's factors and its gradient, in float64."""

    A: np.ndarray
    G: np.ndarray
    gradient: np.ndarray

    def inverses(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """A^-1 and G^-1 with factored Tikhonov damping, as float32."""
        pi = np.sqrt(np.trace(self.A) / len(self.A) * len(self.G) / np.trace(self.G))
        A, G = (
            np.linalg.inv(factor + share * np.sqrt(damping) * np.eye(len(factor)))
            for factor, share in ((self.A, pi), (self.G, 1 / pi))
        )
        return A.astype(np.float32), G.astype(np.float32)


def to_tf32(matrix: np.ndarray) -> np.ndarray:
    """Rounds float32 to 10 bits of mantissa, to the nearest and ties away from zero."""
    bits = np.ascontiguousarray(matrix, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def update(
    gradient: np.ndarray, inverses: tuple[np.ndarray, np.ndarray], rounded: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """G^-1 dW A^-1, every operand of both products rounded."""
    A, G = map(rounded, inverses)
    return G @ rounded(rounded(gradient) @ A)


def trained(steps: int) -> list[Layer]:
    """Trains, and takes factors and a gradient.

    Args:
        steps: of training.

    Returns:
        The layers.
    """
    ms.set_seed(0)
    data = load()
    network = ResNet()
    optimizer = ms_kfac.KFAC(network, 0.03, factor_interval=1, inverse_interval=5)
    loss = nn.WithLossCell(network, nn.CrossEntropyLoss())
    cell = nn.TrainOneStepCell(loss, optimizer)
    rng = np.random.default_rng(0)

    def batch() -> tuple[Tensor, Tensor]:
        chosen = rng.choice(len(data.train.images), BATCH, replace=False)
        images = (data.train.images[chosen].transpose(0, 3, 1, 2) - data.mean[0]) / data.deviation[0]
        return Tensor(images.astype(np.float32)), Tensor(data.train.labels[chosen])

    for _ in range(steps):
        cell(*batch())
    with optimizer.paused():
        gradients = ms.value_and_grad(loss, None, optimizer.parameters)(*batch())[1]
    by_name = {weights.name: gradient for weights, gradient in zip(optimizer.parameters, gradients)}
    layers = []
    for block in optimizer.blocks:
        own = [f"{block.layer_name}.{part}" for part in ("weight", "bias")]
        parts = [by_name[name].asnumpy().astype(np.float64) for name in own if name in by_name]
        dW = np.concatenate([part.reshape(block.dim_G, -1) for part in parts], axis=1)
        A, G = (factor.asnumpy().astype(np.float64) for factor in block.averages())
        layers.append(Layer(A, G, dW))
    return layers


def errors(found: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> str:
    """The table's columns for the updates of all layers in one precision."""
    worst = max(np.linalg.norm(own - right) / np.linalg.norm(right) for own, right in zip(found, exact))
    own, right = (np.concatenate([matrix.ravel() for matrix in of]) for of in (found, exact))
    whole = np.linalg.norm(own - right) / np.linalg.norm(right)
    cosine = own @ right / np.linalg.norm(own) / np.linalg.norm(right)
    return f"{whole:.1e} | {worst:.1e} | {cosine:.6f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="of training (default: 100)")
    arguments = parser.parse_args()
    run = describe_run()
    print(f"Commit {run['commit']}, {run['date']}, ResNet-20 after {arguments.steps} steps\n")
    columns = ("error", "worst layer", "cosine")
    head = [f"{precision} {column}" for precision in ("float32", "TF32") for column in columns]
    print("| damping | " + " | ".join(head) + " |\n|" + "---|" * (1 + len(head)))
    layers = trained(arguments.steps)
    for damping in DAMPINGS:
        inverses = [layer.inverses(damping) for layer in layers]
        exact, *others = (
            [update(layer.gradient, own, rounded) for layer, own in zip(layers, inverses)]
            for rounded in (np.float64, np.float32, to_tf32)
        )
        values = [errors(found, exact) for found in others]
        print(f"| {damping:g} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
