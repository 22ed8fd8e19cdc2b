"""One run of the comparison, in a process of its own: prints its result as JSON in the last line."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparison.budget import Budget, Schedule, read_budget
from benchmarks.comparison.held_out import first_images, hold_out
from benchmarks.comparison.tasks import TASKS, recipe_of, settings_of
from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
from mindspore import Tensor, ops  # noqa: E402

from benchmarks.support.large_graph import LargeGraph  # noqa: E402
from model_zoo.common.command_line import run_command  # noqa: E402
from model_zoo.common.data.pipelines import evaluation_batches, load_data, training_batches  # noqa: E402
from model_zoo.common.factory import build  # noqa: E402
from model_zoo.common.options.networks import METRIC_OF_NETWORK  # noqa: E402
from model_zoo.common.recipe import Recipe, load_recipe  # noqa: E402
from model_zoo.common.schedules import Constant  # noqa: E402
from model_zoo.common.training import start_mindspore  # noqa: E402


def endless_batches(recipe: Recipe, data: Any) -> Generator[Any, None, None]:
    """The batches of one epoch after the other, with one pipeline per epoch as in training."""
    for epoch in itertools.count():
        pipeline = training_batches(data, recipe.data, seed=recipe.seed, epoch=epoch)
        yield from pipeline.create_tuple_iterator(num_epochs=1)


def data_to_evaluate(recipe: Recipe, data: Any, train_images: int) -> list[Any]:
    """The batches of an evaluation: the test split, then the first training images if any."""
    batches = [evaluation_batches(data, "test", recipe.data)]
    if train_images:
        batches.append(evaluation_batches(first_images(data, train_images), "train", recipe.data))
    return batches


def train(
    recipe: Recipe,
    data: Any,
    budget: Budget,
    step_ms: float,
    warm_up_seconds: float,
    evaluations: int,
    schedule: Schedule,
    train_images: int,
) -> dict[str, Any]:
    """Trains a recipe for a budget.

    The learning rate follows the budget; the recipe's schedule and epochs are unused.

    Args:
        recipe: the recipe.
        data: its data. The test split is what the run is evaluated on.
        budget: how long to train.
        step_ms: milliseconds per step on an idle machine.
        warm_up_seconds: what the first steps take in addition.
        evaluations: how many times to evaluate, at equal parts of the steps.
        schedule: the learning rate over the run.
        train_images: how many training images to evaluate on as well.

    Returns:
        The columns of the run: the number of steps, the curve as [steps, loss, metric], followed by the loss
        and the metric of the training images if any, and "error", empty unless a loss became NaN or
        infinite.
    """
    start_mindspore(recipe, "CPU")
    parts = build(replace(recipe, schedule=Constant()), data.classes, 1)
    step = LargeGraph(parts.model.train_network)
    # Of every rule of the optimizer.
    named = [p for p in parts.optimizer.get_parameters() if p.name.endswith("learning_rate")]
    rates = [(parameter, parameter.asnumpy().copy()) for parameter in named]
    assert rates
    evaluated = data_to_evaluate(recipe, data, train_images)
    metric = METRIC_OF_NETWORK[recipe.network.name]
    epoch_steps = training_batches(data, recipe.data, seed=recipe.seed, epoch=0).get_dataset_size()
    steps = budget.steps(step_ms / 1000, evaluations, epoch_steps, warm_up_seconds)
    curve: list[list[float]] = []
    batches = endless_batches(recipe, data)
    for done in range(1, steps + 1):
        factor = schedule.factor((done - 1) / steps)
        for rate, base in rates:
            ops.assign(rate, Tensor(base * factor, ms.float32))
        loss = float(step(*next(batches)).asnumpy())
        if not math.isfinite(loss):
            return {"steps": done, "curve": curve, "error": f"the loss is {loss} at step {done}"}
        if done * evaluations >= (len(curve) + 1) * steps:
            found = [parts.model.eval(rows, dataset_sink_mode=False) for rows in evaluated]
            step.set_train(True)
            losses = [float(one["loss"]) for one in found]
            if not all(map(math.isfinite, losses)):
                error = f"the evaluated losses are {losses} after step {done}"
                return {"steps": done, "curve": curve, "error": error}
            curve.append([done, *(float(one[key]) for one in found for key in ("loss", metric))])
    return {"steps": steps, "curve": curve, "error": ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes one run; the exit status is 2 for an error in its settings or its data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison.train", description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--budget", type=read_budget, required=True)
    parser.add_argument("--step-ms", type=float, required=True)
    parser.add_argument("--warm-up-seconds", type=float, required=True)
    parser.add_argument("--evaluations", type=int, required=True)
    parser.add_argument("--split", choices=("validation", "test"), required=True)
    parser.add_argument("--data-dir", type=Path)
    parsed = parser.parse_args(arguments)
    return run_command(lambda signals: _run(parsed), default_signals=True)


def _run(parsed: argparse.Namespace) -> int:
    task = TASKS[parsed.task]
    settings = settings_of(parsed.task, parsed.method, parsed.set)
    recipe = load_recipe(recipe_of(parsed.task, parsed.method), settings)
    data = load_data(recipe.data, parsed.data_dir)
    trial = parsed.split == "validation"
    result = train(
        recipe,
        hold_out(data, task.held_out) if trial else data,
        parsed.budget,
        parsed.step_ms,
        parsed.warm_up_seconds,
        parsed.evaluations,
        task.schedule,
        0 if trial else task.train_images,
    )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
