r"""Drift of Sherman-Morrison K-FAC's inverses from K-FAC's while a network trains.

    python benchmarks/sherman_morrison_drift.py --data-dir DIR [--refreshes 400]

K-FAC trains 196-20-20-20-10 on 14x14 MNIST and refreshes statistics and inverses at every step. Two shadow
optimizers, ``SMKFAC(rescale="none")`` (as printed) and ``SMKFAC(rescale="trace")``, get its weights before
each step and see the same batch. So all three compute the same statistics, and only their inverses differ.
After each refresh:

* distance: :math:`\|X - K\|_F / \|K\|_F` of a layer's whole inverse :math:`X = c\, A^{-1} \otimes G^{-1}`,
  with c the factor of ``rescale``, from K-FAC's K; mean over the layers;
* norm: :math:`\|X\|_F / \|K\|_F`, mean over the layers;
* cosine: between the two preconditioned gradients of all layers.

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

import ms_kfac  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from benchmarks.shadow_optimizer import ShadowOptimizer, mnist14_vectors  # noqa: E402

BATCH = 500
DAMPING = 0.01
LEARNING_RATE = 0.03


def relative(
    X: tuple[np.ndarray, np.ndarray, float], K: tuple[np.ndarray, np.ndarray, float]
) -> tuple[float, float]:
    """Distance and norm of c A⁻¹ ⊗ G⁻¹ over the norm of another, without forming either."""
    norm_X, norm_K = (c * np.linalg.norm(A) * np.linalg.norm(G) for A, G, c in (X, K))
    inner = X[2] * K[2] * (X[0] * K[0]).sum() * (X[1] * K[1]).sum()
    square = norm_X**2 - 2 * inner + norm_K**2
    return float(np.sqrt(max(square, 0.0)) / norm_K), float(norm_X / norm_K)


def main() -> None:
    """Trains, compares, plots and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--refreshes", type=int, default=400, help="Sherman-Morrison refreshes after the full ones"
    )
    parser.add_argument("--full-refreshes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "sherman_morrison")
    arguments = parser.parse_args()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    images, targets = mnist14_vectors(arguments.data_dir)

    kfac = ShadowOptimizer(ms_kfac.KFAC, LEARNING_RATE, damping=DAMPING)
    options = {"damping": DAMPING, "full_refreshes": arguments.full_refreshes}
    shadows = {
        rescale: ShadowOptimizer(ms_kfac.SMKFAC, 0.0, rescale=rescale, **options)
        for rescale in ("none", "trace")
    }
    rows: list[dict[str, float]] = []
    for number in range(arguments.full_refreshes + arguments.refreshes):
        batch = rng.choice(len(images), BATCH, replace=False)
        x, y = ms.Tensor(images[batch]), ms.Tensor(targets[batch])
        for shadow in shadows.values():
            shadow.copy_weights(kfac.network)
            gradients = shadow.step(x, y)
        kfac.step(x, y)
        # All three saw the same weights and batch, so these gradients hold for each of them.
        updates = {rescale: shadow.preconditioned(gradients) for rescale, shadow in shadows.items()}
        reference = kfac.preconditioned(gradients)
        K = kfac.inverses()
        row: dict[str, float] = {"refresh": number + 1}
        for rescale, shadow in shadows.items():
            U = updates[rescale]
            pairs = [relative(X, k) for X, k in zip(shadow.inverses(), K)]
            row[f"{rescale} distance"], row[f"{rescale} norm"] = (float(v) for v in np.mean(pairs, axis=0))
            row[f"{rescale} cosine"] = float(U @ reference / np.linalg.norm(U) / np.linalg.norm(reference))
        rows.append(row)
        if (number + 1) % 25 == 0 or number + 1 == arguments.full_refreshes:
            print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)

    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    picture, axes = plt.subplots(1, 3, figsize=(14, 4), constrained_layout=True)
    for axis, name in zip(axes, ("distance", "norm", "cosine")):
        for rescale in shadows:
            axis.plot(
                [row["refresh"] for row in rows],
                [row[f"{rescale} {name}"] for row in rows],
                label=f'rescale="{rescale}"',
            )
        axis.axvline(arguments.full_refreshes, color="grey", linewidth=0.8, linestyle=":")
        axis.set_xlabel("refresh")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_ylabel("distance of the inverses from K-FAC's, relative")
    axes[0].set_yscale("log")
    axes[1].set_ylabel("norm of the inverses over K-FAC's")
    axes[1].set_yscale("log")
    axes[2].set_ylabel("cosine of the preconditioned gradients")
    picture.suptitle("Sherman-Morrison K-FAC against K-FAC, both refreshed at every step")
    picture.savefig(output / "drift.png", dpi=120)
    results = {
        **describe_run(),
        "last": rows[-1],
        "rows": rows,
    }
    (output / "drift.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
