"""What ``ms_kfac.find_settings`` finds for K-FAC, and how far that trains.

    python -m benchmarks.find_settings --task vit_digits --tuned 1e-4 3e-7
    python -m benchmarks.find_settings --task convnet_cifar10 --tuned 0.03 5e-4 --data-dir DIR

Network, data and all other options are those of the comparison's recipe of K-FAC. After the search the recipe
trains from the start, for a number of steps, with the comparison's schedule of the learning rate: with the
default damping and clip, with the pair that was found, with a third of the found clip, and with the pair that
the comparison's trials found best; each once per seed. The trainings are evaluated as trials are: on held-out
images where the task has some. A line has the medians, then each seed's loss.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparison.budget import Budget
from benchmarks.comparison.held_out import hold_out
from benchmarks.comparison.runs import train_command
from benchmarks.comparison.tasks import LOSS, METRIC, ROOT, TASKS, recipe_of, settings_of
from benchmarks.machine import describe_run
from model_zoo.common.data.pipelines import load_data, training_batches
from model_zoo.common.data.shards import Shard
from model_zoo.common.losses import create_loss
from model_zoo.common.networks import build_network
from model_zoo.common.optimizers import create_optimizer
from model_zoo.common.recipe import Recipe, load_recipe
from model_zoo.common.schedules import Constant
from model_zoo.common.training import start_mindspore
from ms_kfac import KFAC, FoundSettings, find_settings

_OPTIONS = inspect.signature(KFAC).parameters
DEFAULTS = _OPTIONS["damping"].default, _OPTIONS["kl_clip"].default


def search(recipe: Recipe, data: Any, steps: int) -> FoundSettings:
    """Searches the settings of a recipe, with its learning rate but not its schedule."""
    start_mindspore(recipe, "CPU")
    recipe = replace(recipe, schedule=Constant())
    return find_settings(
        lambda network, **settings: create_optimizer(
            replace(recipe, optimizer=replace(recipe.optimizer, **settings)), network, 1
        ),
        build_network(recipe.network, data.classes),
        create_loss(recipe.network.name, Shard()),
        training_batches(data, recipe.data, seed=recipe.seed, epoch=0),
        steps=steps,
    )


def trained(parsed: argparse.Namespace, damping: float, kl_clip: float, seed: int) -> list[float]:
    """Loss and metric after a training, which has a process of its own; NaN if it diverges."""
    settings = [
        *parsed.set,
        f"optimizer.damping={damping:g}",
        f"optimizer.kl_clip={kl_clip:g}",
        f"seed={seed}",
    ]
    command = train_command(
        parsed.task,
        "kfac",
        settings,
        split=TASKS[parsed.task].trial_split,
        # So many steps of one second.
        budget=Budget(parsed.train_steps),
        evaluations=1,
        times={"step_ms": "1000", "warm_up_seconds": "0"},
        data_dir=parsed.data_dir,
    )
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["error"]:
        return [float("nan")] * 2
    last = result["curve"][-1]
    return [last[LOSS], last[METRIC]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches, trains, and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.find_settings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the recipe")
    parser.add_argument("--tuned", nargs=2, type=float, required=True, metavar=("DAMPING", "KL_CLIP"))
    parser.add_argument("--steps", type=int, default=80, help="of a trial of the search")
    parser.add_argument("--train-steps", type=int, default=1000, help="of a training")
    parser.add_argument("--seeds", type=int, default=3, help="of the trainings")
    parser.add_argument("--data-dir", type=Path, help="folder of CIFAR-10 or MNIST")
    parsed = parser.parse_args(arguments)
    task = TASKS[parsed.task]
    recipe = load_recipe(recipe_of(parsed.task, "kfac"), settings_of(parsed.task, "kfac", parsed.set))
    data = load_data(recipe.data, parsed.data_dir)
    data = hold_out(data, task.held_out) if task.held_out else data
    print(describe_run())
    began = time.monotonic()
    found = search(recipe, data, parsed.steps)
    print(f"search: {time.monotonic() - began:.0f} s\n{found}\n")
    damping, kl_clip = found.best["damping"], found.best["kl_clip"]
    rows = {
        "defaults": DEFAULTS,
        "found": (damping, kl_clip),
        "found, a third of the clip": (damping, kl_clip / 3),
        "tuned": tuple(parsed.tuned),
    }
    print(f"{parsed.train_steps} steps; {task.trial_split} images")
    print(f"{'':26}  {'damping':>8}  {'kl_clip':>8}  {'loss':>8}  {task.metric:>8}  losses")
    for name, (damping, kl_clip) in rows.items():
        runs = [trained(parsed, damping, kl_clip, seed) for seed in range(1, parsed.seeds + 1)]
        loss, metric = (statistics.median(numbers) for numbers in zip(*runs))
        losses = ", ".join(f"{run[0]:.4f}" for run in runs)
        line = f"{name:26}  {damping:8.3g}  {kl_clip:8.3g}  {loss:8.4f}  {metric:8.4f}  {losses}"
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
