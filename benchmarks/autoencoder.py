"""Compares K-FAC with momentum SGD and Adam on the MNIST auto-encoder, at equal training time.

    python benchmarks/autoencoder.py --data-dir DIR [--epochs 5] [--longer] [--runs DIR] [--output DIR]

Every optimizer trains for ``--epochs`` epochs at each learning rate of its grid (``GRID``). All other
settings come from the committed recipes. The run with the lowest final training reconstruction error is
selected. With ``--longer``, the first-order optimizers run again for as many epochs as fit into K-FAC's
training time. Finished runs of the same recipes under ``--runs`` are not repeated. Writes ``figures.json``,
``table.txt`` and ``curves.png``.

The comparison at equal time uses K-FAC's last finished evaluation, without interpolation. That favours the
first-order optimizers, because K-FAC's epochs are longer.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_run  # noqa: E402
from benchmarks.support.zoo_runs import train  # noqa: E402
from model_zoo.common.curves import draw_curves  # noqa: E402

GRID = {
    "sgdm": (0.0003, 0.001, 0.003, 0.01),
    "adam": (0.0003, 0.001, 0.003),
    "kfac": (0.03, 0.1, 0.3),
}
FIGURE = "train_reconstruction_error"


Epochs = Sequence[Mapping[str, Any]]


def train_at(optimizer: str, learning_rate: float, epochs: int, data: Path, output: Path) -> Epochs:
    """Trains one recipe at a learning rate, unless the run is already finished.

    Args:
        optimizer: "sgdm", "adam" or "kfac".
        learning_rate: overrides the learning rate of the recipe.
        epochs: overrides the epochs of the recipe.
        data: the folder of MNIST.
        output: the output folder of the run.

    Returns:
        The metrics of each epoch; empty if the run failed or its error became non-finite.
    """
    recipe = ROOT / "model_zoo" / "autoencoder" / f"autoencoder_mnist_{optimizer}.yaml"
    settings = [f"optimizer.learning_rate={learning_rate}", f"epochs={epochs}"]
    run = train(recipe, settings, data, output, FIGURE)
    if run.error:
        print(f"  {optimizer} {learning_rate:g} failed: {run.error}")
    return run.epochs


def error_after(epochs: Epochs, seconds: float) -> float:
    """The error at the last evaluation within the given seconds of training."""
    finished = [line[FIGURE] for line in epochs if line["seconds"] <= seconds]
    return finished[-1] if finished else math.nan


def tune(
    data: Path, epochs: int, folder: Path
) -> tuple[dict[str, float], dict[str, Epochs], dict[str, dict[str, float]]]:
    """Tries every learning rate of the grid.

    Args:
        data: the folder of MNIST.
        epochs: epochs per trial.
        folder: the parent of the output folders, OPTIMIZER-RATE.

    Returns:
        The best rate of each optimizer, the metrics of its run, and the final errors of all runs.
    """
    best: dict[str, float] = {}
    runs: dict[str, Epochs] = {}
    errors: dict[str, dict[str, float]] = {}
    for optimizer, rates in GRID.items():
        trials = {
            rate: train_at(optimizer, rate, epochs, data, folder / f"{optimizer}-{rate:g}") for rate in rates
        }
        ends = {rate: lines[-1][FIGURE] for rate, lines in trials.items() if lines}
        if not ends:
            sys.exit(f"{optimizer} failed at every learning rate of its grid")
        best[optimizer] = min(ends, key=lambda rate: ends[rate])
        runs[optimizer] = trials[best[optimizer]]
        errors[optimizer] = {f"{rate:g}": error for rate, error in ends.items()}
        print(f"  {optimizer}, error by learning rate after {epochs} epochs: {errors[optimizer]}", flush=True)
    return best, runs, errors


def main() -> None:
    """Runs the grid, compares the best runs and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "autoencoder")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "autoencoder")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--longer", action="store_true")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    data = arguments.data_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)
    folder = arguments.runs.resolve()
    best, runs, tried = tune(data, arguments.epochs, folder)
    folders = {f"{name}, lr {rate:g}": folder / f"{name}-{rate:g}" for name, rate in best.items()}
    longer = {}
    for name in ("sgdm", "adam") if arguments.longer else ():
        share = runs["kfac"][-1]["seconds"] / runs[name][-1]["seconds"]
        epochs = math.ceil(max(share, 1.0) * arguments.epochs)
        longer[name] = train_at(name, best[name], epochs, data, folder / f"{name}-longer")
        folders[f"{name}, {epochs} epochs"] = folder / f"{name}-longer"
    draw_curves(folders, FIGURE, "MNIST auto-encoder, batch 500", output / "curves.png")

    rows = [f"learning rates, best of the grid: {best}"]
    rows.append(f"{'run':8} {'epochs':>6} {'seconds':>8} {'error':>7} {'K-FAC then':>11}")
    kfac = runs["kfac"]
    for name, lines in (*runs.items(), *((f"{name}+", lines) for name, lines in longer.items())):
        last = lines[-1]
        then = error_after(kfac, last["seconds"])
        rows.append(f"{name:8} {last['epoch']:6} {last['seconds']:8.1f} {last[FIGURE]:7.2f} {then:11.2f}")
    rows.append("error: training reconstruction error, summed over pixels, mean over the 60,000 images")
    rows.append(
        "K-FAC then: K-FAC's error at its last evaluation within the same training time; +: longer run"
    )
    table = "\n".join(rows)
    print(table)
    (output / "table.txt").write_text(table + "\n")
    results = {**describe_run(), "grid": tried, "best": best}
    keep = ("epoch", "seconds", FIGURE)
    results["runs"] = {
        name: [{key: line[key] for key in keep} for line in lines]
        for name, lines in (*runs.items(), *((f"{name}-longer", lines) for name, lines in longer.items()))
    }
    (output / "figures.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
