"""What ``ms_kfac.find_settings`` finds for K-FAC, and how far that trains.

    python -m benchmarks.find_settings --task vit_digits --tuned 1e-4 3e-7
    python -m benchmarks.find_settings --task convnet_cifar10 --tuned 0.03 5e-4 --data-dir DIR

Network, data and all other options are those of the comparison's recipe of K-FAC. After the search the recipe
trains four times from the start, for the same number of steps, with the comparison's schedule of the
learning rate: with the default damping and clip, with the pair that was found, with a third of the found
clip, and with the pair that the comparison's trials found best. They are evaluated as trials are: on held-out
images where the task has some.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparison.budget import Budget
from benchmarks.comparison.held_out import hold_out
from benchmarks.comparison.tasks import TASKS, recipe_of, settings_of
from benchmarks.comparison.train import train
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


def with_settings(recipe: Recipe, **settings: Any) -> Recipe:
    """The recipe with other options of its optimizer."""
    return replace(recipe, optimizer=replace(recipe.optimizer, **settings))


def search(recipe: Recipe, data: Any, steps: int) -> FoundSettings:
    """Searches the settings of a recipe, with its learning rate but not its schedule."""
    start_mindspore(recipe, "CPU")
    recipe = replace(recipe, schedule=Constant())
    return find_settings(
        lambda network, **settings: create_optimizer(with_settings(recipe, **settings), network, 1),
        build_network(recipe.network, data.classes),
        create_loss(recipe.network.name, Shard()),
        training_batches(data, recipe.data, seed=recipe.seed, epoch=0),
        steps=steps,
    )


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
    best = found.best["damping"], found.best["kl_clip"]
    rows = {
        "defaults": DEFAULTS,
        "found": best,
        "found, a third of the clip": (best[0], best[1] / 3),
        "tuned": tuple(parsed.tuned),
    }
    print(f"{parsed.train_steps} steps; {task.trial_split} images")
    print(f"{'':26}  {'damping':>8}  {'kl_clip':>8}  {'loss':>8}  {task.metric}")
    for name, (damping, kl_clip) in rows.items():
        # One evaluation, after so many steps of one second.
        result = train(
            with_settings(recipe, damping=damping, kl_clip=kl_clip),
            data,
            Budget(parsed.train_steps),
            1000.0,
            0.0,
            1,
            task.schedule,
            0,
        )
        outcome = result["error"] or "{1:8.4f}  {2:.4f}".format(*result["curve"][-1])
        print(f"{name:26}  {damping:8.3g}  {kl_clip:8.3g}  {outcome}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
