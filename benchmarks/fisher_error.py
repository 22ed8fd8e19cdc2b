r"""Error of K-FAC, TKFAC and EKFAC against the exact Fisher matrix while a small classifier trains.

    python benchmarks/fisher_error.py --data-dir DIR [--steps 600] [--every 20]

The experiment of the TKFAC paper (Gao et al. 2021, results 1 and 2): 196-20-20-20-10 on 14x14 MNIST, trained
by TKFAC with normal damping and sampled Fisher. Every ``--every`` steps, the weights are copied into shadow
networks with one optimizer each. These compute the statistics of one batch of 500 images with labels sampled
from the model, as taps do in training. The exact blocks use the same batch and labels,

.. math::
    F_l = \frac1N \sum_n (a_n a_n^{\top}) \otimes (g_n g_n^{\top}),

and the error is :math:`\sum_l \|F_l - \hat F_l\|_F`, absolute and relative to :math:`\sum_l \|F_l\|_F`.
EKFAC's second moments are computed on the same batch, in the eigenbasis of that batch. Norms and inner
products are computed from the rows a and g in float64, without forming a block: :math:`\langle a a^{\top}
\otimes g g^{\top}, X \otimes Y \rangle = (a^{\top} X a)(g^{\top} Y g)`.

"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import nn, ops  # noqa: E402

import ms_kfac  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from benchmarks.shadow_optimizer import ShadowOptimizer, mnist14_vectors  # noqa: E402
from model_zoo.mlp.network import MLP  # noqa: E402

BATCH = 500
DAMPING = 0.01
LEARNING_RATE = 0.03
METHODS = {"K-FAC": ms_kfac.KFAC, "TKFAC": ms_kfac.TKFAC, "EKFAC": ms_kfac.EKFAC}


def dense_layers(network: nn.Cell) -> list[tuple[str, nn.Dense]]:
    """The layers by name, in order."""
    return [(name, cell) for name, cell in network.cells_and_names() if isinstance(cell, nn.Dense)]


def forward(network: MLP, images: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs (with a one for the bias) and linear outputs of every layer, in float64."""
    inputs, outputs, x = [], [], images.astype(np.float64)
    for _, layer in dense_layers(network):
        inputs.append(np.concatenate([x, np.ones((len(x), 1))], axis=1))
        W, b = (p.asnumpy().astype(np.float64) for p in (layer.weight, layer.bias))
        outputs.append(x @ W.T + b)
        x = np.tanh(outputs[-1])
    return inputs, outputs


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities by row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sample_gradients(network: MLP, outputs: list[np.ndarray], labels: np.ndarray) -> list[np.ndarray]:
    """Gradient of each sample's cross-entropy with respect to each layer's linear outputs."""
    layers = [layer for _, layer in dense_layers(network)]
    g = softmax(outputs[-1])
    g[np.arange(len(labels)), labels] -= 1.0
    gradients = [g]
    for index in range(len(layers) - 1, 0, -1):
        W = layers[index].weight.asnumpy().astype(np.float64)
        g = (g @ W) * (1.0 - np.tanh(outputs[index - 1]) ** 2)
        gradients.insert(0, g)
    return gradients


def squared_norm(a: np.ndarray, g: np.ndarray) -> float:
    """‖F‖² of the exact block."""
    return float(((a @ a.T) ** 2 * (g @ g.T) ** 2).mean())


def kronecker_error(a: np.ndarray, g: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
    """‖F − X ⊗ Y‖ of the exact block."""
    inner = (((a @ X) * a).sum(axis=1) * ((g @ Y) * g).sum(axis=1)).mean()
    square = squared_norm(a, g) - 2 * inner + (X**2).sum() * (Y**2).sum()
    return float(np.sqrt(max(square, 0.0)))


def eigenbasis_error(a: np.ndarray, g: np.ndarray, Q_A: np.ndarray, Q_G: np.ndarray, s: np.ndarray) -> float:
    """‖F − Q diag(s) Qᵀ‖ of the exact block, with s (d_out, d_in)."""
    exact = ((g @ Q_G) ** 2).T @ (a @ Q_A) ** 2 / len(a)
    square = squared_norm(a, g) - 2 * (exact * s).sum() + (s**2).sum()
    return float(np.sqrt(max(square, 0.0)))


def block_error(a: np.ndarray, g: np.ndarray, factors: dict[str, np.ndarray]) -> float:
    """The error of the approximation given by its factors."""
    F = {key: np.asarray(value, np.float64) for key, value in factors.items()}
    if "s" in F:
        return eigenbasis_error(a, g, F["Q_A"], F["Q_G"], F["s"])
    if "Phi" in F:
        return kronecker_error(a, g, float(F["delta"]) * F["Phi"], F["Psi"])
    return kronecker_error(a, g, F["A"], F["G"])


def main() -> None:
    """Trains, measures, plots and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "fisher_error")
    arguments = parser.parse_args()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    images, targets = mnist14_vectors(arguments.data_dir)
    # Without learning and moving average, the statistics are those of the last batch.
    # EKFAC recomputes its basis at every other step, and its second moments at the next.
    options = {"damping": DAMPING, "factor_decay": 0.0, "inverse_interval": ms_kfac.FixedInterval(2)}
    shadows = {title: ShadowOptimizer(method, 0.0, **options) for title, method in METHODS.items()}

    network = MLP()
    optimizer = ms_kfac.TKFAC(
        network, LEARNING_RATE, damping=DAMPING, factor_interval=1, inverse_interval=10, fisher="sampled"
    )
    step = ms_kfac.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
    step.set_train()
    rows: list[dict[str, float]] = []
    for number in range(arguments.steps + 1):
        batch = rng.choice(len(images), BATCH, replace=False)
        if number % arguments.every == 0:
            inputs, outputs = forward(network, images[batch])
            cumulated = softmax(outputs[-1]).cumsum(axis=1)
            labels = (rng.random((BATCH, 1)) > cumulated).sum(axis=1).clip(max=9).astype(np.int32)
            gradients = sample_gradients(network, outputs, labels)
            names = [name for name, _ in dense_layers(network)]
            row: dict[str, float] = {"step": number}
            row["norm"] = sum(np.sqrt(squared_norm(a, g)) for a, g in zip(inputs, gradients))
            for title, shadow in shadows.items():
                shadow.copy_weights(network)
                # Two steps: EKFAC recomputes its basis in the first and its second moments in the second.
                for _ in range(2):
                    shadow.step(ms.Tensor(images[batch]), ms.Tensor(labels))
                row[title] = sum(
                    block_error(a, g, shadow.optimizer.factors(name))
                    for name, a, g in zip(names, inputs, gradients)
                )
            rows.append(row)
            print("  ".join(f"{key} {value:.5g}" for key, value in row.items()), flush=True)
        loss = step(ms.Tensor(images[batch]), ms.Tensor(targets[batch]))
    print(f"training loss at the end: {float(ops.reduce_mean(loss).asnumpy()):.4f}")

    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    picture, axes = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for title in METHODS:
        steps = [row["step"] for row in rows]
        axes[0].plot(steps, [row[title] for row in rows], label=title)
        axes[1].plot(steps, [row[title] / row["norm"] for row in rows], label=title)
    for axis, name in zip(axes, ("error, summed over layers", "error over the norm of the exact Fisher")):
        axis.set_xlabel("step")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    picture.suptitle("Distance from the exact Fisher: 196-20-20-20-10, 14x14 MNIST, batch 500")
    picture.savefig(output / "error.png", dpi=120)
    results = {
        **describe_run(),
        "means": {
            title: {
                "error": float(np.mean([row[title] for row in rows])),
                "relative": float(np.mean([row[title] / row["norm"] for row in rows])),
            }
            for title in METHODS
        },
        "share_of_points_below_kfac": {
            title: float(np.mean([row[title] < row["K-FAC"] for row in rows])) for title in METHODS
        },
        "rows": rows,
    }
    (output / "errors.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: results[key] for key in ("means", "share_of_points_below_kfac")}, indent=1))


if __name__ == "__main__":
    main()
