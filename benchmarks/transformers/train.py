"""One run of the benchmark, in a process of its own: prints its result as JSON in the last line."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.transformers.budget import Budget, Clock, rate_factor
from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
from mindspore import Tensor, ops  # noqa: E402

from model_zoo.common.data.pipelines import evaluation_batches, load_data, training_batches  # noqa: E402
from model_zoo.common.factory import build  # noqa: E402
from model_zoo.common.options.networks import METRIC_OF_NETWORK  # noqa: E402
from model_zoo.common.recipe import Recipe, load_recipe  # noqa: E402
from model_zoo.common.schedules import Constant  # noqa: E402
from model_zoo.common.training import start_mindspore  # noqa: E402


def _batches(recipe: Recipe, data: Any) -> Iterator[Any]:
    for epoch in itertools.count():
        pipeline = training_batches(data, recipe.data, seed=recipe.seed, epoch=epoch)
        yield from pipeline.create_tuple_iterator(num_epochs=1)


def train(recipe: Recipe, budget: Budget, evaluations: int, data_dir: Path | None) -> dict[str, Any]:
    """Trains a recipe until its budget is spent.

    Evaluation and the first step, which compiles, do not count as training time. The learning rate follows
    the budget; the recipe's schedule and epochs are unused.

    Args:
        recipe: the recipe.
        budget: how long to train.
        evaluations: how many times to evaluate, at equal parts of the budget.
        data_dir: the folder of the data.

    Returns:
        The columns of the run: the curve as [steps, seconds, loss, metric], and "error", empty unless the
        loss became NaN or infinite.
    """
    start_mindspore(recipe, "CPU")
    data = load_data(recipe.data, data_dir)
    parts = build(replace(recipe, schedule=Constant()), data.classes, 1)
    step = parts.model.train_network
    # Of every rule of the optimizer.
    named = [p for p in parts.optimizer.get_parameters() if p.name.endswith("learning_rate")]
    rates = [(parameter, parameter.asnumpy().copy()) for parameter in named]
    assert rates
    tested = evaluation_batches(data, "test", recipe.data)
    metric = METRIC_OF_NETWORK[recipe.network.name]
    compiling, clock = Clock(), Clock()
    steps, error = 0, ""
    curve: list[list[float]] = []
    batches = _batches(recipe, data)
    while not error and len(curve) < evaluations:
        with clock if steps else compiling:
            factor = rate_factor(budget.progress(steps, clock.seconds))
            for rate, base in rates:
                ops.assign(rate, Tensor(base * factor, ms.float32))
            loss = float(step(*next(batches)).asnumpy())
        steps += 1
        if not math.isfinite(loss):
            error = f"the loss is {loss} at step {steps}"
        elif budget.progress(steps, clock.seconds) >= (len(curve) + 1) / evaluations:
            found = parts.model.eval(tested, dataset_sink_mode=False)
            step.set_train(True)
            curve.append([steps, round(clock.seconds, 3), float(found["loss"]), float(found[metric])])
    return {
        "steps": steps,
        "seconds": round(clock.seconds, 3),
        "cpu_seconds": round(clock.cpu_seconds, 3),
        "compile_seconds": round(compiling.seconds, 3),
        "curve": curve,
        "error": error,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one point of the grid."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transformers.train", description=__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--amount", type=float, required=True)
    parser.add_argument("--unit", choices=("s", "steps"), required=True)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--data-dir", type=Path)
    parsed = parser.parse_args(arguments)
    recipe = load_recipe(parsed.recipe, parsed.set)
    result = train(recipe, Budget(parsed.amount, parsed.unit), parsed.evaluations, parsed.data_dir)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
