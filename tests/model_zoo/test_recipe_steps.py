"""Every recipe of the zoo builds and takes two steps on synthetic images; its options reach the optimizer."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import ms_kfac
from model_zoo.common.factory import build
from model_zoo.common.options.optimizers import SecondOrderOptions
from model_zoo.common.recipe import Recipe, load_recipe
from tests.model_zoo.synthetic_data import RECIPES, ROOT

CLASSES = {"cifar100": 100, "image_folder": 1000, "mindrecord": 1000, "stdlib": 256}
# The recipes' networks, as small as they get without losing a kind of layer.
SMALL = {
    "resnet": ["network.depth=8", "network.width=1"],
    "imagenet_resnet": ["network.depth=18", "network.width=4"],
    "vgg": ["network.depth=11", "network.width=4"],
    "vit": ["network.depth=1", "network.width=8", "network.heads=2", "network.patch=16"],
    "gpt": ["network.depth=1", "network.width=8", "network.heads=2", "data.window=6"],
}
SHAPES = {"autoencoder": (4, 784), "mlp": (4, 196)}
STEPS = 2


def small_recipe(path: Path, *overrides: str) -> Recipe:
    name = load_recipe(path).network.name
    return load_recipe(path, ["mode=pynative", *SMALL.get(name, ()), *overrides])


def batch(recipe: Recipe, rng: np.random.Generator) -> tuple[ms.Tensor, ms.Tensor]:
    classes = CLASSES.get(recipe.data.name, 10)
    if recipe.network.name == "gpt":
        ids = rng.integers(0, classes, (4, recipe.data.window + 1))
        return ms.Tensor(ids[:, :-1], ms.int32), ms.Tensor(ids[:, 1:], ms.int32)
    images = ms.Tensor(rng.random(SHAPES.get(recipe.network.name, (4, 3, 32, 32))), ms.float32)
    if recipe.network.name == "autoencoder":
        return images, images
    return images, ms.Tensor([0, 1, 2, classes - 1], ms.int32)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_takes_two_steps(path: Path, rng: np.random.Generator) -> None:
    take_two_steps(small_recipe(path), rng)


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        ("optimizer.sharing=reduce network.projections=joint", None),
        ("optimizer.fisher=sampled optimizer.normalization=unit_wise", "every parameter has a block"),
        ("network.tied=true", "% of the weights have no curvature"),
    ],
)
def test_options_of_a_language_model_take_two_steps(
    overrides: str, warning: str | None, rng: np.random.Generator
) -> None:
    recipe = small_recipe(ROOT / "model_zoo/gpt/gpt_stdlib_kfac.yaml", *overrides.split())
    with nullcontext() if warning is None else pytest.warns(UserWarning, match=warning):
        take_two_steps(recipe, rng)


def take_two_steps(recipe: Recipe, rng: np.random.Generator) -> None:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_seed(recipe.seed)
    parts = build(recipe, CLASSES.get(recipe.data.name, 10), STEPS)
    images, targets = batch(recipe, rng)
    before = {p.name: p.asnumpy().copy() for p in parts.network.trainable_params()}
    losses = [float(parts.model.train_network(images, targets)) for _ in range(STEPS)]
    assert np.isfinite(losses).all()
    for parameter in parts.network.trainable_params():
        weights = parameter.asnumpy()
        assert np.isfinite(weights).all(), parameter.name
        assert not np.array_equal(weights, before[parameter.name]), parameter.name
    # A pass over sampled targets is not counted. Two float32 numbers and their sum are rounded by 6e-8 each.
    assert parts.loss_fn.sums()[0] == pytest.approx(sum(losses), rel=1e-6)
    if isinstance(recipe.optimizer, SecondOrderOptions):
        refreshes = parts.optimizer.refreshes()
        assert refreshes.pop("refused") == 0
        assert min(refreshes.values()) >= 1
        if recipe.optimizer.factor_interval == recipe.optimizer.inverse_interval == 1:
            assert refreshes == {"statistics": STEPS, "inverses": STEPS}


def test_schedules_and_intervals_reach_the_optimizer() -> None:
    recipe = load_recipe(
        ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml",
        [
            "epochs=3",
            "schedule={name: step, milestones: [4], unit: steps}",
            "optimizer.learning_rate=0.5",
            "optimizer.damping=0.25",
            "optimizer.damping_schedule={name: step, milestones: [1], gamma: 0.5}",
            "optimizer.factor_interval={0: 1, 4: 2}",
            "optimizer.fisher=sampled",
        ],
    )
    optimizer = build(recipe, 10, 2).optimizer
    assert optimizer.learning_rate.learning_rate.asnumpy() == pytest.approx([0.5] * 4 + [0.05] * 2)
    dampings = [float(optimizer.damping(ms.Tensor([step], ms.int32))) for step in range(6)]
    assert dampings == [0.25] * 2 + [0.125] * 4
    assert isinstance(optimizer.factor_policy, ms_kfac.IntervalSchedule)
    assert repr(optimizer.factor_policy) == "every 1 from step 0, every 2 from step 4"
    assert optimizer.fisher == "sampled"


def test_first_order_rule_reaches_the_optimizer() -> None:
    path = ROOT / "model_zoo/gpt/gpt_stdlib_kfac.yaml"
    schedule = ["epochs=3", "schedule={name: step, milestones: [4], unit: steps}"]
    rule = ["optimizer.first_order.learning_rate=0.5", "optimizer.first_order.beta1=0.25"]
    optimizer = build(load_recipe(path, [*schedule, *rule]), 256, 2).optimizer
    assert optimizer.takes_adam
    assert optimizer.adam_rate.values.asnumpy() == pytest.approx([0.5] * 4 + [0.05] * 2)
    assert "beta1=0.25" in optimizer.summary()
    optimizer = build(load_recipe(path, ["optimizer.first_order={name: momentum}"]), 256, 2).optimizer
    assert not optimizer.takes_adam


def test_nesterov_steps_of_sgd_follow_the_formula() -> None:
    path = ROOT / "model_zoo/mlp/mlp_mnist14_sgdm.yaml"
    settings = ["optimizer.nesterov=true", "optimizer.momentum=0.5", "optimizer.weight_decay=0.1"]
    parts = build(
        load_recipe(path, ["schedule={name: constant}", "optimizer.learning_rate=0.1", *settings]), 10, 2
    )
    weights = parts.network.trainable_params()
    expected = [weight.asnumpy().astype(np.float64) for weight in weights]
    velocity = [np.zeros_like(weight) for weight in expected]
    for step in (1, 2, 3):
        gradients = [np.full(weight.shape, 0.5 * step, np.float32) for weight in weights]
        parts.optimizer(tuple(ms.Tensor(gradient) for gradient in gradients))
        for number, gradient in enumerate(gradients):
            decayed = gradient + 0.1 * expected[number]
            velocity[number] = 0.5 * velocity[number] + decayed
            expected[number] = expected[number] - 0.1 * (decayed + 0.5 * velocity[number])
    for weight, wanted in zip(weights, expected):
        np.testing.assert_allclose(weight.asnumpy(), wanted, rtol=0, atol=1e-6)


def test_label_smoothing_reaches_the_loss() -> None:
    path = ROOT / "model_zoo/mlp/mlp_mnist14_sgdm.yaml"
    logits, labels = ms.Tensor(np.eye(10)[:3] * 9, ms.float32), ms.Tensor([0, 1, 2], ms.int32)
    plain = float(build(load_recipe(path), 10, STEPS).loss_fn(logits, labels))
    smoothed = float(build(load_recipe(path, ["label_smoothing=0.5"]), 10, STEPS).loss_fn(logits, labels))
    # Nine of ten classes get 0.05 each, at a log-probability that is 9 lower.
    assert smoothed - plain == pytest.approx(9 * 0.05 * 9, rel=1e-5)
