"""Checks that a killed and resumed run equals an uninterrupted one, bit for bit.

    python benchmarks/kill_and_resume.py [--recipe FILE] [--methods kfac,...] [--epochs 2] [--set KEY=VALUE]

For each method of the recipe's family, three processes train: one to the end; one that is killed by SIGKILL
in the middle of an epoch, after a checkpoint; one that resumes it. All Parameters at the two ends are
compared: weights, momentum, statistics, inverses, running moments, counters, averages.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.machine import describe_run  # noqa: E402
from model_zoo.common.checkpoint.files import (  # noqa: E402
    STATE_FILE,
    Position,
    newest_checkpoint,
    read_position,
)
from model_zoo.common.data.shards import Shard  # noqa: E402
from model_zoo.common.errors import CheckpointError  # noqa: E402
from model_zoo.common.options.optimizers import OPTIMIZERS  # noqa: E402
from model_zoo.common.recipe import sibling_recipe  # noqa: E402

DIGITS = ROOT / "model_zoo" / "resnet" / "resnet20_digits_kfac.yaml"
# So that the few refreshes of a short run are of both kinds.
OVERRIDES = {
    "smkfac": ["--set", "optimizer.full_refreshes=2", "--set", "optimizer.inverse_interval={0: 5}"],
}


def train(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a training process."""
    command = [sys.executable, "-m", "model_zoo.train", "--no-progress", *arguments]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)


def finished(process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for a process; exits with its output if it failed."""
    if process.wait():
        sys.exit(f"{log.read_text(encoding='utf-8', errors='replace')}\na training process failed")


def kill_in_mid_epoch(process: subprocess.Popen[bytes], run: Path, after: int, log: Path) -> Position:
    """Kills a process after a number of steps, once its newest checkpoint lies within an epoch."""
    while process.poll() is None:
        try:
            position = read_position(newest_checkpoint(run, Shard()))
        except CheckpointError:
            position = None
        if position is not None and position.step >= after and position.step_of_epoch:
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                # Another checkpoint may have been written before the signal arrived.
                return read_position(newest_checkpoint(run, Shard()))
            break
        time.sleep(0.005)
    sys.exit(f"{log.read_text(encoding='utf-8', errors='replace')}\nthe run ended before it could be killed")


def state_of(run: Path) -> dict[str, np.ndarray]:
    """Every Parameter at the end of a run."""
    saved = ms.load_checkpoint(str(newest_checkpoint(run, Shard()) / STATE_FILE))
    return {name: value.asnumpy() for name, value in saved.items()}


def compare(method: str, recipe: Path, common: list[str], every: int, folder: Path) -> dict[str, object]:
    """Trains, kills, resumes and compares.

    Args:
        method: the method's name, for the result.
        recipe: its recipe.
        common: additional arguments of all runs.
        every: steps between checkpoints.
        folder: the parent of the output folders.

    Returns:
        The compared quantities and their differences.
    """
    whole, killed, log = folder / "whole", folder / "killed", folder / "output.txt"
    folder.mkdir(parents=True)
    arguments = ["--recipe", str(recipe), *common]
    finished(train([*arguments, "--output", str(whole), "--checkpoint-every", "1000000epochs"], log), log)
    end = read_position(newest_checkpoint(whole, Shard()))
    process = train([*arguments, "--output", str(killed), "--checkpoint-every", f"{every}steps"], log)
    stopped = kill_in_mid_epoch(process, killed, end.step // 2, log)
    finished(train(["--resume", str(killed)], log), log)

    expected, found = state_of(whole), state_of(killed)
    if expected.keys() != found.keys():
        sys.exit(f"{method}: the two runs do not hold the same Parameters")
    differing = [name for name, value in expected.items() if value.tobytes() != found[name].tobytes()]
    largest = max(
        (float(np.abs(expected[name].astype(np.float64) - found[name]).max()) for name in differing),
        default=0.0,
    )
    return {
        "method": method,
        "steps": end.step,
        "resumed_after": stopped.step,
        "parameters": len(expected),
        "numbers": sum(value.size for value in expected.values()),
        "differing": differing,
        "largest_difference": largest,
    }


def siblings(recipe: Path) -> list[str]:
    """The optimizers for which the zoo has a recipe of the same network and data."""
    stem = recipe.stem.rpartition("_")[0]
    return [name for name in OPTIMIZERS if recipe.with_name(f"{stem}_{name}{recipe.suffix}").is_file()]


def main() -> int:
    """Runs the command; the exit status is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=DIGITS)
    parser.add_argument("--methods", metavar="NAMES", help="default: all with a sibling of the recipe")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--every", type=int, default=3, metavar="STEPS", help="steps between checkpoints")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON to write")
    options = parser.parse_args()
    methods = siblings(options.recipe) if options.methods is None else options.methods.split(",")
    common = [part for text in (f"epochs={options.epochs}", *options.set) for part in ("--set", text)]
    if options.data_dir is not None:
        common += ["--data-dir", str(options.data_dir)]

    print(f"{'method':>7} {'steps':>6} {'resumed after':>14} {'Parameters':>11} {'numbers':>10}  difference")
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        for method in methods:
            recipe = sibling_recipe(options.recipe, method)
            given = [*OVERRIDES.get(method, []), *common]
            result = compare(method, recipe, given, options.every, Path(temporary) / method)
            results.append(result)
            differing = result["differing"]
            verdict = (
                f"{result['largest_difference']:.2g} in {', '.join(differing)}"
                if isinstance(differing, list) and differing
                else "none: equal bits"
            )
            print(
                f"{method:>7} {result['steps']:>6} {result['resumed_after']:>14} {result['parameters']:>11} "
                f"{result['numbers']:>10}  {verdict}",
                flush=True,
            )
    if options.output is not None:
        content = {**describe_run(), "recipe": options.recipe.name, "set": options.set, "runs": results}
        options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return int(any(result["differing"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
