"""Mixed precision, loss scale and gradient accumulation of recipes."""

from __future__ import annotations

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.errors import DataError, RecipeError
from model_zoo.common.options.precision import PrecisionOptions
from model_zoo.common.precision import check_step, training_options
from model_zoo.common.recipe import Recipe, load_recipe
from model_zoo.common.run_options import RunOptions
from model_zoo.common.schedules import Step, step_values
from model_zoo.common.training import train_recipe
from tests.model_zoo.synthetic_data import ROOT

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml"
# Five batches per epoch, ten in total.
SMALL = ["epochs=2", "data.batch_size=8", "data.evaluation_batch_size=8", "evaluate=[test]"]
MIXED = ["precision.amp_level=O3", "precision.loss_scale=1024", "accumulation_steps=3"]


def small(path: Path = MLP, *overrides: str) -> Recipe:
    return load_recipe(path, [*SMALL, *overrides])


def test_default_precision_options_change_nothing() -> None:
    recipe = small()
    assert recipe.precision == PrecisionOptions("O0", None)
    assert training_options(recipe) == {
        "amp_level": "O0",
        "loss_scale_manager": None,
        "accumulation_steps": 1,
    }


def test_loss_scale_options_create_managers() -> None:
    dynamic = training_options(small(MLP, *MIXED, "precision.loss_scale=dynamic"))
    assert dynamic["amp_level"] == "O3"
    assert dynamic["accumulation_steps"] == 3
    assert isinstance(dynamic["loss_scale_manager"], ms.DynamicLossScaleManager)
    fixed = training_options(small(MLP, "precision.loss_scale=1e3"))["loss_scale_manager"]
    assert isinstance(fixed, ms.FixedLossScaleManager)
    assert (fixed.get_loss_scale(), fixed.get_drop_overflow_update()) == (1000.0, True)


@pytest.mark.parametrize(
    ("override", "accepted"),
    [
        ("precision.loss_scale=static", "null, dynamic or a number of at least 1"),
        ("precision.loss_scale=0.5", "null, dynamic or a number of at least 1"),
        ("precision.amp_level=O4", "one of O0, O1, O2, O3, auto"),
        ("accumulation_steps=0", "an integer of at least 1"),
        ("precision.level=O2", "accepted there: amp_level, loss_scale"),
    ],
)
def test_invalid_precision_values_are_refused(override: str, accepted: str) -> None:
    with pytest.raises(RecipeError, match=override.partition("=")[0]) as caught:
        small(MLP, override)
    assert accepted in str(caught.value)


def test_epoch_too_short_for_one_accumulated_step_is_refused() -> None:
    with pytest.raises(DataError, match=r"10 batches.*accumulation_steps 11"):
        check_step(small(MLP, "accumulation_steps=11"), 5)
    check_step(small(MLP, "accumulation_steps=10"), 5)


def test_learning_rates_count_optimizer_steps() -> None:
    """Five batches per epoch, two per step: the third step spans both epochs."""
    rates = step_values(Step(milestones=(1,), gamma=0.5), 1.0, 2, 5, 2)
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.5]


def train(recipe: Recipe, data: Path, output: Path, **options: object) -> dict[str, np.ndarray]:
    """Trains, and returns the saved network."""
    train_recipe(recipe, RunOptions("run", data, output, progress=False, **options))  # type: ignore[arg-type]
    saved = ms.load_checkpoint(str(output / "network.ckpt"))
    return {name: value.asnumpy() for name, value in saved.items()}


def test_a_run_in_float16_with_accumulation_can_be_resumed(mnist_folder: Path, tmp_path: Path) -> None:
    """Resumes between micro-batches: after the fifth batch, two of the second step are accumulated."""
    whole = train(small(MLP, *MIXED), mnist_folder, tmp_path / "whole")
    every = CheckpointInterval.parse("5steps")
    train(small(MLP, *MIXED, "epochs=1"), mnist_folder, tmp_path / "run", checkpoint_every=every)
    resumed = train(small(MLP, *MIXED), mnist_folder, tmp_path / "run", checkpoint_every=every, resume=True)
    assert set(whole) == set(resumed)
    for name, weight in whole.items():
        assert weight.dtype == np.float32
        assert np.isfinite(weight).all()
        np.testing.assert_array_equal(resumed[name], weight, err_msg=name)
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["recipe"]["precision"] == {"amp_level": "O3", "loss_scale": 1024.0}
    # Steps of ten batches: none was dropped.
    assert run["refreshes"]["statistics"] == 3


def test_first_order_run_in_mixed_precision(mnist_folder: Path, tmp_path: Path) -> None:
    path = MLP.with_name("mlp_mnist14_sgdm.yaml")
    plain = train(small(path), mnist_folder, tmp_path / "plain")
    mixed = ["precision.amp_level=O3", "precision.loss_scale=128"]
    half = train(small(path, *mixed), mnist_folder, tmp_path / "half")
    for name, weight in plain.items():
        # Ten steps, each with gradients of some ten roundings by 2⁻¹¹.
        error = np.linalg.norm(half[name] - weight)
        assert 0 < error < 0.05 * np.linalg.norm(weight), name
