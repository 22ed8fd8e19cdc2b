"""Recipes: the zoo's are complete, and errors name the wrong key."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path

import pytest

from model_zoo.common.errors import RecipeError
from model_zoo.common.options.optimizers import OPTIMIZERS
from model_zoo.common.recipe import apply_override, load_recipe, parse_recipe, sibling_recipe
from model_zoo.common.schedules import Exponential
from tests.model_zoo.synthetic_data import RECIPES, ROOT

THREE = ("sgdm", "adam", "kfac")
# The networks without transformers have Adam.
ALL = tuple(name for name in OPTIMIZERS if name != "adamw")
TRANSFORMERS = ("sgdm", "adamw", "kfac", "ekfac", "skfac")

CONTENT = {
    "network": {"name": "resnet", "depth": 20},
    "data": {"name": "digits", "batch_size": 32},
    "optimizer": {"name": "kfac", "learning_rate": 0.1},
    "schedule": {"name": "step", "milestones": [2, 4]},
    "epochs": 5,
}


@pytest.fixture
def content() -> dict:
    return copy.deepcopy(CONTENT)


def test_every_network_and_data_set_has_a_recipe_per_optimizer() -> None:
    found = {(r.network.name, r.data.name, r.optimizer.name) for r in map(load_recipe, RECIPES)}
    tables = ("sgdm", "adam", "kfac", "tkfac")
    expected = {
        ("resnet", "digits"): ALL,
        ("autoencoder", "mnist"): ALL,
        ("mlp", "mnist14"): THREE,
        ("convnet", "cifar10"): THREE,
        ("resnet", "cifar10"): (*tables, "smkfac"),
        ("resnet", "cifar100"): (*tables, "smkfac"),
        ("resnet", "image_folder"): ("sgdm", "kfac"),
        ("vgg", "cifar10"): tables,
        ("vgg", "cifar100"): tables,
        ("imagenet_resnet", "image_folder"): ("sgdm", "thor", "spngd"),
        ("vit", "cifar10"): TRANSFORMERS,
        ("vit", "digits"): TRANSFORMERS,
        ("gpt", "stdlib"): TRANSFORMERS,
    }
    assert found == {(*pair, name) for pair, names in expected.items() for name in names}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_has_a_description_and_the_name_of_its_optimizer(path: Path) -> None:
    recipe = load_recipe(path)
    assert path.read_text(encoding="utf-8").startswith("# ")
    data, last = path.stem.split("_")[-2:]
    assert data in (
        ("imagenet", "cifar10-images") if recipe.data.name == "image_folder" else (recipe.data.name,)
    )
    assert last.partition("-")[0] == recipe.optimizer.name
    assert sibling_recipe(path, "sgdm").is_file()


def test_readme_tables_link_every_recipe_once() -> None:
    text = (ROOT / "model_zoo/README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((\S+\.yaml)\)", text)
    assert sorted(links) == [str(path.relative_to(ROOT / "model_zoo")) for path in RECIPES]


def test_sibling_recipes_differ_only_in_optimizer_and_schedule() -> None:
    chosen = {
        "resnet/resnet20_digits": ALL,
        "autoencoder/autoencoder_mnist": ALL,
        "mlp/mlp_mnist14": THREE,
        "vit/vit_cifar10": TRANSFORMERS,
        "vit/vit_digits": TRANSFORMERS,
        "gpt/gpt_stdlib": TRANSFORMERS,
    }
    for stem, names in chosen.items():
        recipes = [load_recipe(ROOT / "model_zoo" / f"{stem}_{name}.yaml") for name in names]
        assert len({(r.network, r.data, r.epochs, r.seed, r.mode, r.evaluate) for r in recipes}) == 1


def test_recipe_values_are_read_and_defaults_added(content: dict) -> None:
    content["optimizer"] |= {"damping": 1e-2, "kl_clip": None, "skip": ["fc"]}
    recipe = parse_recipe(content)
    assert recipe.optimizer == OPTIMIZERS["kfac"]("kfac", 0.1, damping=0.01, kl_clip=None, skip=("fc",))
    assert recipe.schedule.milestones == (2, 4)
    assert (recipe.mode, recipe.evaluate) == ("graph", ("test",))


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean epochs?"),
        ("optimizer.dampng", "did you mean optimizer.damping?"),
        ("data.shuffle", "crop_padding"),
        ("network.nonlinearity", "shortcut"),
        ("schedule.power", "gamma"),
    ],
)
def test_unknown_key_is_refused_with_its_dotted_name(content: dict, key: str, hint: str) -> None:
    apply_override(content, f"{key}=1")
    with pytest.raises(RecipeError, match=rf"^{key} is not a key of a recipe") as caught:
        parse_recipe(content)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("override", "accepted"),
    [
        ("epochs=0", "an integer of at least 1"),
        ("epochs=true", "an integer of at least 1"),
        ("epochs=2.5", "an integer of at least 1"),
        ("seed=-1", "an integer of at least 0"),
        ("mode=eager", "graph or pynative"),
        ("evaluate=[valid]", "a list of train and test"),
        ("network.name=lenet", "one of resnet, imagenet_resnet, vgg, convnet, autoencoder, mlp, vit, gpt"),
        ("network.depth=21", "an integer 6n\\+2 of at least 8, such as 20 or 32"),
        ("network.shortcut=none", "identity or projection"),
        (
            "data.name=imagenet",
            "one of digits, cifar10, cifar100, mnist, mnist14, image_folder, mindrecord, stdlib",
        ),
        ("data.flip=maybe", "true or false"),
        ("data.batch_size=abc", "an integer of at least 1"),
        ("optimizer.learning_rate=0", "a number above 0"),
        ("optimizer.learning_rate=.nan", "a number above 0"),
        ("optimizer.learning_rate=.inf", "a number above 0"),
        ("optimizer.momentum=1", "a number of at least 0 and below 1"),
        ("optimizer.damping=fast", "a number above 0"),
        ("optimizer.kl_clip=-1", "null or a number above 0"),
        ("optimizer.factor_decay=1", "a number of at least 0 and below 1"),
        ("optimizer.fisher=exact", "empirical or sampled"),
        ("optimizer.factor_interval=0", "an integer of at least 1, or a mapping .*"),
        ("optimizer.inverse_interval={1: 5}", "an integer of at least 1, or a mapping .*"),
        ("optimizer.inverse_interval={0: 5, 2.5: 10}", "an integer of at least 1, or a mapping .*"),
        ("optimizer.inverse_interval={0: 0}", "an integer of at least 1, or a mapping .*"),
        ("label_smoothing=1", "a number of at least 0 and below 1"),
        ("schedule.unit=hours", "epochs or steps"),
        ("optimizer.skip=fc", "a list of regular expressions on layer names"),
        ("schedule.milestones=[0]", "a list of epochs or steps of at least 1"),
        ("schedule.gamma=2", "a number above 0 and of at most 1"),
    ],
)
def test_invalid_value_is_refused_with_the_accepted_ones(content: dict, override: str, accepted: str) -> None:
    apply_override(content, override)
    key = override.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"^{key} is .*; accepted: {accepted}\.$"):
        parse_recipe(content)


@pytest.mark.parametrize(
    ("override", "accepted"),
    [
        ("data.resize=200", "an integer of at least data.image_size, which is 224"),
        ("data.least_area=0", "a number above 0 and of at most 1"),
        ("data.least_area=1.5", "a number above 0 and of at most 1"),
        ("data.mean=[1,2]", "a list of three numbers, each of at least 0"),
        ("data.mean=120", "a list of three numbers, each of at least 0"),
        ("data.deviation=[60,0,60]", "a list of three numbers, each above 0"),
        ("data.workers=0", "null or an integer of at least 1"),
        ("data.broken=ignore", "refuse or skip"),
    ],
)
def test_invalid_value_for_an_image_folder_is_refused(content: dict, override: str, accepted: str) -> None:
    content["data"] = {"name": "image_folder", "batch_size": 32}
    apply_override(content, override)
    key = override.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"^{key} is .*; accepted: {accepted}\.$"):
        parse_recipe(content)


def test_encoded_images_default_to_imagenet_sizes(content: dict) -> None:
    content["data"] = {"name": "mindrecord", "batch_size": 32, "mean": [1, 2, 3.5], "workers": 4}
    data = parse_recipe(content).data
    assert (data.image_size, data.resize, data.least_area) == (224, 256, 0.08)
    assert (data.mean, data.deviation, data.workers) == ((1, 2, 3.5), (58.395, 57.12, 57.375), 4)


def test_fixed_size_network_refuses_other_sizes(content: dict) -> None:
    content["network"] = {"name": "convnet"}
    content["data"] = {"name": "image_folder", "batch_size": 32}
    with pytest.raises(RecipeError, match=r"^data\.image_size is 224; accepted with .* 'convnet': 32\.$"):
        parse_recipe(content)
    content["data"] |= {"image_size": 32}
    assert parse_recipe(content).data.image_size == 32


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.heads=3", "network.heads is 3; accepted: a divisor of network.width, which is 128"),
        ("network.context=32", "data.window is 64; accepted: an integer of at most network.context, .* 32"),
        ("network.projections=three", "network.projections is 'three'; accepted: separate or joint"),
        ("data.epoch_windows=0", "data.epoch_windows is 0; accepted: an integer of at least 1"),
        ("optimizer.beta2=1", "optimizer.beta2 is 1; accepted: a number above 0 and below 1"),
    ],
)
def test_a_bad_value_of_a_language_model_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(ROOT / "model_zoo/gpt/gpt_stdlib_adamw.yaml", [override])


def test_a_vision_transformer_refuses_patches_that_do_not_fill_the_image() -> None:
    path = ROOT / "model_zoo/vit/vit_digits_sgdm.yaml"
    with pytest.raises(RecipeError, match=r"network\.patch is 5; accepted: one of 1, 2, 4, 8, 16, 32\."):
        load_recipe(path, ["network.patch=5"])
    with pytest.raises(RecipeError, match=r"network\.heads is 3; accepted: a divisor of network\.width"):
        load_recipe(path, ["network.heads=3"])


def test_nesterov_steps_need_a_momentum() -> None:
    path = ROOT / "model_zoo/mlp/mlp_mnist14_sgdm.yaml"
    assert load_recipe(path, ["optimizer.nesterov=true"]).optimizer.nesterov
    with pytest.raises(
        RecipeError, match=r"optimizer\.nesterov is True; accepted with optimizer\.momentum 0"
    ):
        load_recipe(path, ["optimizer.nesterov=true", "optimizer.momentum=0"])


@pytest.mark.parametrize("key", ["network", "epochs"])
def test_missing_key_is_reported(content: dict, key: str) -> None:
    del content[key]
    with pytest.raises(RecipeError, match=rf"^{key} is missing"):
        parse_recipe(content)
    del content["optimizer"]["learning_rate"]
    content[key] = CONTENT[key]
    with pytest.raises(RecipeError, match=r"^optimizer\.learning_rate is missing"):
        parse_recipe(content)


def test_data_that_do_not_fit_the_network_are_refused(content: dict) -> None:
    content["data"]["name"] = "mnist"
    del content["network"]["depth"]
    with pytest.raises(
        RecipeError, match=r"^data.name is 'mnist'; accepted with network.name 'resnet': digits or cifar10"
    ):
        parse_recipe(content)


@pytest.mark.parametrize(
    ("section", "path"),
    [("schedule", "schedule"), ("optimizer.damping_schedule", r"optimizer\.damping_schedule")],
)
def test_schedule_that_reaches_zero_before_the_end_is_refused(content: dict, section: str, path: str) -> None:
    apply_override(content, f"{section}={{name: polynomial, until_epoch: 4}}")
    with pytest.raises(
        RecipeError, match=rf"^{path}\.until_epoch is 4.0; accepted .*at least epochs, which is 5"
    ):
        parse_recipe(content)
    apply_override(content, f"{section}.final=0.01")
    parse_recipe(content)


def test_autoencoder_refuses_label_smoothing(content: dict) -> None:
    content |= {"network": {"name": "autoencoder"}, "data": {"name": "mnist", "batch_size": 5}}
    content["label_smoothing"] = 0.1
    with pytest.raises(RecipeError, match=r"^label_smoothing is 0.1; accepted with .* no labels: 0\."):
        parse_recipe(content)


@pytest.mark.parametrize("intervals", [{0: 1, 50: 10}, {"50": 10, "0": 1}])
def test_intervals_may_change_during_training(content: dict, intervals: dict) -> None:
    content["optimizer"]["inverse_interval"] = intervals
    content["optimizer"]["damping_schedule"] = {"name": "exponential", "gamma": 0.5}
    options = parse_recipe(content).optimizer
    assert options.inverse_interval == {0: 1, 50: 10}
    assert options.factor_interval == 10
    assert options.damping_schedule == Exponential("exponential", 0.5)


@pytest.mark.parametrize("section", ["network", "optimizer", "data", "schedule"])
def test_section_that_is_not_a_mapping_is_refused(content: dict, section: str) -> None:
    content[section] = "sgdm"
    with pytest.raises(RecipeError, match=rf"^{section} is 'sgdm'; accepted: a mapping with the key name:"):
        parse_recipe(content)


@pytest.mark.parametrize("override", ["epochs", "=3", "epochs.a=1", "optimizer..damping=1", "epochs=[1"])
def test_unreadable_override_is_refused(content: dict, override: str) -> None:
    with pytest.raises(RecipeError, match=r"^--set "):
        apply_override(content, override)


def test_override_replaces_the_value_of_the_file() -> None:
    path = ROOT / "model_zoo/resnet/resnet20_digits_kfac.yaml"
    recipe = load_recipe(path, ["optimizer.learning_rate=0.5", "schedule.name=polynomial", "data.flip=true"])
    assert (recipe.optimizer.learning_rate, recipe.schedule.name, recipe.data.flip) == (
        0.5,
        "polynomial",
        True,
    )


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "\xff"])
def test_file_that_is_not_a_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"r\.yaml (is not|can't be read)"):
        load_recipe(path)


def test_sibling_recipes_are_found_by_file_name_suffix(tmp_path: Path) -> None:
    path = ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml"
    assert sibling_recipe(path, "adam").name == "mlp_mnist14_adam.yaml"
    with pytest.raises(RecipeError, match="--compare names 'lamb'; accepted: sgdm, adam, adamw, kfac"):
        sibling_recipe(path, "lamb")
    with pytest.raises(RecipeError, match=r"needs the recipe .*mine_sgdm\.yaml, which does not exist"):
        sibling_recipe(tmp_path / "mine_kfac.yaml", "sgdm")
    with pytest.raises(RecipeError, match="whose name ends in"):
        sibling_recipe(tmp_path / "mine.yaml", "sgdm")


def test_recipes_of_methods_differ_from_kfac_only_in_the_method() -> None:
    """Momentum, weight decay, clip and, where the method has them, intervals and decay are K-FAC's."""
    own = {
        "learning_rate",
        "damping",
        *("spatial", "samples", "damping_split"),
        *("rescale", "full_refreshes", "similarity", "omega1", "split"),
    }
    replaced = {"skfac": {"factor_decay"}, "spngd": {"factor_interval", "inverse_interval", "normalization"}}
    for stem in ("resnet/resnet20_digits", "autoencoder/autoencoder_mnist"):
        kfac = dataclasses.asdict(load_recipe(ROOT / "model_zoo" / f"{stem}_kfac.yaml").optimizer)
        for name in set(ALL) - set(THREE):
            options = dataclasses.asdict(load_recipe(ROOT / "model_zoo" / f"{stem}_{name}.yaml").optimizer)
            for key in set(kfac) - own - replaced.get(name, set()) - {"name"}:
                assert options[key] == kfac[key], f"{stem} {name} {key}"
