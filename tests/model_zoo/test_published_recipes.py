"""Recipes of published tables: one per row, with the values stated in the papers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from model_zoo.common.recipe import Recipe, load_recipe, sibling_recipe
from model_zoo.common.schedules import TrainingProgress, step_values
from tests.model_zoo.synthetic_data import ROOT

ZOO = ROOT / "model_zoo"
CIFAR_IMAGES = 50_000
IMAGENET_IMAGES = 1_281_167

# Liu, Gao and Wang 2021, section 3: the settings of all rows of table 2.
SHERMAN_MORRISON_COMMON = {
    "network.name": "resnet",
    "network.depth": 20,
    "data.batch_size": 128,
    "data.flip": True,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.0,
    "schedule.gamma": 0.1,
}
SHERMAN_MORRISON_SECOND_ORDER = {
    "optimizer.learning_rate": 0.001,
    "optimizer.damping": 0.001,
    "optimizer.fisher": "sampled",
}
# The columns of table 2: (factors:inverses).
SHERMAN_MORRISON_ROWS: dict[str, dict[str, Any]] = {
    "sgdm": {"optimizer.name": "sgdm", "optimizer.learning_rate": 0.03},
    "kfac-every-step": SHERMAN_MORRISON_SECOND_ORDER
    | {"optimizer.name": "kfac", "optimizer.factor_interval": 1, "optimizer.inverse_interval": 1},
    "kfac": SHERMAN_MORRISON_SECOND_ORDER
    | {
        "optimizer.name": "kfac",
        "optimizer.factor_interval": {0: 100},
        "optimizer.inverse_interval": {0: 100},
    },
    "smkfac": SHERMAN_MORRISON_SECOND_ORDER
    | {
        "optimizer.name": "smkfac",
        "optimizer.factor_interval": {0: 100},
        "optimizer.inverse_interval": {0: 100},
        "optimizer.alpha": 0.1,
        "optimizer.beta": 0.1,
        "optimizer.full_refreshes": 10,
        "optimizer.rescale": "none",
    },
}

# Gao et al. 2021, "Setup" and "Part II"; the rates and dampings of its grid are not printed.
TKFAC_COMMON = {
    "data.batch_size": 128,
    "data.flip": True,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "step",
    "schedule.gamma": 0.1,
    "epochs": 200,
}
TKFAC_SECOND_ORDER = {
    "optimizer.momentum": 0.9,
    "optimizer.factor_decay": 0.95,
    "optimizer.factor_interval": {0: 100},
    "optimizer.inverse_interval": {0: 100},
    "optimizer.fisher": "sampled",
    "schedule.milestones": (40, 80, 120, 160),
}
TKFAC_FIRST_ORDER = {"schedule.milestones": (60, 120, 180)}
TKFAC_ROWS: dict[str, dict[str, Any]] = {
    "sgdm": TKFAC_FIRST_ORDER | {"optimizer.name": "sgdm", "optimizer.momentum": 0.9},
    "adam": TKFAC_FIRST_ORDER | {"optimizer.name": "adam"},
    "kfac": TKFAC_SECOND_ORDER | {"optimizer.name": "kfac"},
    "tkfac-nor": TKFAC_SECOND_ORDER
    | {"optimizer.name": "tkfac", "optimizer.damping_mode": "normal", "optimizer.ema": "paper"},
    "tkfac-new": TKFAC_SECOND_ORDER
    | {
        "optimizer.name": "tkfac",
        "optimizer.damping_mode": "automatic",
        "optimizer.automatic_form": "printed",
        "optimizer.ema": "paper",
    },
}
NETWORKS = {
    "resnet": ("resnet20w4", {"network.name": "resnet", "network.depth": 20}),
    "vgg": ("vgg16", {"network.name": "vgg", "network.depth": 16}),
}


def value(recipe: Recipe, key: str) -> Any:
    """The value of a recipe at a dotted key."""
    result: Any = recipe
    for part in key.split("."):
        result = getattr(result, part)
    return result


def check(path: Path, printed: dict[str, Any]) -> Recipe:
    recipe = load_recipe(path)
    assert {key: value(recipe, key) for key in printed} == printed
    assert "Not yet run to the end." in path.read_text(encoding="utf-8")
    return recipe


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize("row", SHERMAN_MORRISON_ROWS)
def test_each_column_of_the_sherman_morrison_table_has_its_recipe(data: str, row: str) -> None:
    path = ZOO / "resnet/sherman_morrison" / f"resnet20w4_{data}_{row}.yaml"
    recipe = check(path, SHERMAN_MORRISON_COMMON | SHERMAN_MORRISON_ROWS[row] | {"data.name": data})
    # 39,100 iterations include the incomplete last batch of each epoch.
    assert recipe.epochs * math.ceil(CIFAR_IMAGES / recipe.data.batch_size) == 39_100
    # A factor of 0.1 every 16,000 iterations.
    steps = CIFAR_IMAGES // recipe.data.batch_size
    rates = step_values(recipe.schedule, recipe.optimizer.learning_rate, recipe.epochs, steps)
    assert isinstance(rates, list)
    falls = [step for step in range(1, len(rates)) if rates[step] < rates[step - 1]]
    assert falls == [16_000, 32_000]


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("row", TKFAC_ROWS)
def test_each_row_of_the_tkfac_table_has_its_recipe(network: str, data: str, row: str) -> None:
    stem, printed = NETWORKS[network]
    path = ZOO / network / "tkfac" / f"{stem}_{data}_{row}.yaml"
    check(path, TKFAC_COMMON | printed | TKFAC_ROWS[row] | {"data.name": data})


def test_table_folders_contain_only_table_recipes() -> None:
    assert len(list((ZOO / "resnet/sherman_morrison").iterdir())) == 2 * len(SHERMAN_MORRISON_ROWS)
    for network in NETWORKS:
        assert len(list((ZOO / network / "tkfac").iterdir())) == 2 * len(TKFAC_ROWS)


def test_recipes_of_a_table_are_comparable() -> None:
    path = ZOO / "vgg/tkfac/vgg16_cifar10_tkfac-new.yaml"
    assert sibling_recipe(path, "tkfac-nor").name == "vgg16_cifar10_tkfac-nor.yaml"
    assert sibling_recipe(path, "sgdm").name == "vgg16_cifar10_sgdm.yaml"
    assert sibling_recipe(
        ZOO / "resnet/sherman_morrison/resnet20w4_cifar10_sgdm.yaml", "kfac-every-step"
    ).is_file()


def test_resnet50_with_thor_has_the_printed_schedules() -> None:
    recipe = check(
        ZOO / "resnet/resnet50_imagenet_thor.yaml",
        {
            "network.name": "imagenet_resnet",
            "network.depth": 50,
            "data.batch_size": 8 * 32,
            "label_smoothing": 0.1,
            "optimizer.name": "thor",
            "optimizer.momentum": 0.9,
            "optimizer.weight_decay": 5e-4,
            "optimizer.factor_interval": {0: 834},
            "optimizer.inverse_interval": {0: 834},
            "optimizer.omega1": 0.01,
            "optimizer.omega2": 0.0,
            "optimizer.split": 128,
            "epochs": 40,
        },
    )
    steps = IMAGENET_IMAGES // recipe.data.batch_size
    options = recipe.optimizer
    for epoch in (0.0, 7.25, 20.0, 39.9):
        progress = TrainingProgress(epoch * steps, steps, recipe.epochs)
        rate = options.learning_rate * recipe.schedule.factor(progress)
        assert rate == pytest.approx(0.05672 * (1 - epoch / 50) ** 4.9687)
        damping = options.damping * options.damping_schedule.factor(progress)
        assert damping == pytest.approx(0.02345 * 0.5467 ** (epoch / 10))


def test_resnet50_with_spngd_has_the_numbers_of_its_authors_code() -> None:
    recipe = check(
        ZOO / "resnet/resnet50_imagenet_spngd.yaml",
        {
            "network.name": "imagenet_resnet",
            "network.depth": 50,
            "data.batch_size": 4096,
            "optimizer.name": "spngd",
            "optimizer.damping": 2.5e-4,
            "optimizer.damping_schedule.name": "constant",
            "optimizer.factor_decay": 0.0,
            "optimizer.normalization": "unit_wise",
            "optimizer.similarity": 0.1,
            "epochs": 36,
        },
    )
    for epoch, share in ((0.5, 1.0), (1.0, 1.0), (14.0, (39 / 52) ** 11), (36.0, (17 / 52) ** 11)):
        rate = recipe.optimizer.learning_rate * recipe.schedule.factor(
            TrainingProgress(epoch * 312, 312, recipe.epochs)
        )
        assert rate == pytest.approx(8.18e-3 * share)


def test_resnet50_with_sgdm_is_the_baseline_of_goyal_et_al() -> None:
    recipe = load_recipe(ZOO / "resnet/resnet50_imagenet_sgdm.yaml")
    assert dataclasses.astuple(recipe.optimizer) == ("sgdm", 0.1, 0.9, False, 1e-4)
    assert (recipe.data.batch_size, recipe.epochs, recipe.schedule.milestones) == (256, 90, (30, 60, 80))
