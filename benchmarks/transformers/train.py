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

from benchmarks.transformers.budget import rate_factor
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


def endless_batches(recipe: Recipe, data: Any) -> Iterator[Any]:
    """The batches of one epoch after the other."""
    for epoch in itertools.count():
        pipeline = training_batches(data, recipe.data, seed=recipe.seed, epoch=epoch)
        yield from pipeline.create_tuple_iterator(num_epochs=1)


def train(recipe: Recipe, steps: int, evaluations: int, data_dir: Path | None) -> dict[str, Any]:
    """Trains a recipe for a number of steps.

    The learning rate follows the budget; the recipe's schedule and epochs are unused.

    Args:
        recipe: the recipe.
        steps: how long to train.
        evaluations: how many times to evaluate, at equal parts of the steps.
        data_dir: the folder of the data.

    Returns:
        The columns of the run: the number of steps, the curve as [steps, loss, metric], and "error", empty
        unless the loss became NaN or infinite.
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
    curve: list[list[float]] = []
    batches = endless_batches(recipe, data)
    for done in range(1, steps + 1):
        factor = rate_factor((done - 1) / steps)
        for rate, base in rates:
            ops.assign(rate, Tensor(base * factor, ms.float32))
        loss = float(step(*next(batches)).asnumpy())
        if not math.isfinite(loss):
            return {"steps": done, "curve": curve, "error": f"the loss is {loss} at step {done}"}
        if done * evaluations >= (len(curve) + 1) * steps:
            found = parts.model.eval(tested, dataset_sink_mode=False)
            step.set_train(True)
            if not math.isfinite(found["loss"]):
                error = f"the validation loss is {found['loss']} after step {done}"
                return {"steps": done, "curve": curve, "error": error}
            curve.append([done, float(found["loss"]), float(found[metric])])
    return {"steps": steps, "curve": curve, "error": ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one point of the grid."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transformers.train", description=__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--data-dir", type=Path)
    parsed = parser.parse_args(arguments)
    recipe = load_recipe(parsed.recipe, parsed.set)
    print(json.dumps(train(recipe, parsed.steps, parsed.evaluations, parsed.data_dir)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
