"""Evaluation and export of a finished run, a checkpoint and a state file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from model_zoo import evaluate, export
from model_zoo.common.checkpoint.find_checkpoint import find_checkpoint, network_file, stored_recipe
from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.errors import CheckpointError, RecipeError
from model_zoo.common.export import input_shape, trained_network
from model_zoo.common.networks import build_network
from model_zoo.common.options.networks import METRIC_OF_NETWORK
from model_zoo.common.recipe import load_recipe
from model_zoo.common.run_options import RunOptions
from model_zoo.common.training import train_recipe
from tests.model_zoo.synthetic_data import RECIPES, ROOT, write_mnist

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml"
OVERRIDES = ["epochs=2", "data.batch_size=10", "optimizer.averaging=0.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with averaged weights, and a checkpoint in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_mnist(folder / "idx")
    options = RunOptions(
        "run",
        data,
        folder / "run",
        progress=False,
        checkpoint_every=CheckpointInterval(3, "step"),
        keep=9,
    )
    train_recipe(load_recipe(MLP, OVERRIDES), options)
    return options.output


def evaluated(path: Path, run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert evaluate.main(["--checkpoint", str(path), "--data-dir", str(run.parent / "idx"), *more]) == 0
    return capsys.readouterr().out


def test_evaluation_accepts_a_run_a_checkpoint_or_a_file(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_the_end = evaluated(run, run, capsys)
    assert re.fullmatch(r"test loss \d\.\d{4}  test accuracy \d\.\d{4}\n", at_the_end)
    last = run / "checkpoints" / "step_00000008"
    assert evaluated(run / "network.ckpt", run, capsys) == at_the_end
    assert evaluated(last, run, capsys, "--recipe", str(MLP)) == at_the_end
    # The state has the current weights, network.ckpt their averages.
    assert evaluated(last / "state.ckpt", run, capsys) != at_the_end
    assert evaluated(run / "checkpoints" / "step_00000006", run, capsys) != at_the_end


def test_unfinished_run_gives_its_newest_checkpoint(run: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(run, killed)
    (killed / "network.ckpt").unlink()
    assert network_file(killed) == killed / "checkpoints" / "step_00000008" / "network.ckpt"
    assert stored_recipe(network_file(killed), []) == load_recipe(MLP, OVERRIDES)


@pytest.mark.parametrize("where", ["", "checkpoints/step_00000006", "checkpoints/step_00000006/state.ckpt"])
def test_an_exported_network_gives_the_same_outputs(where: str, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "net.mindir"
    arguments = ["--checkpoint", str(run / where), "--output", str(output), "--batch-size", "4"]
    assert export.main(arguments) == 0
    network = trained_network(load_recipe(MLP), network_file(run / where))
    images = ms.Tensor(np.random.default_rng(0).standard_normal((4, 196)).astype(np.float32))
    loaded = nn.GraphCell(ms.load(str(output)))
    assert {p.name for p in loaded.get_parameters()} == {p.name for p in network.get_parameters()}
    # Sums of up to 196 products, possibly in another order: a few float32 ε.
    np.testing.assert_allclose(loaded(images).asnumpy(), network(images).asnumpy(), rtol=1e-5, atol=1e-5)


def test_export_finds_the_classes_in_the_weights(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "model_zoo/resnet/resnet20_digits_kfac.yaml", ["network.depth=8"])
    ms.save_checkpoint(build_network(recipe.network, 17), str(tmp_path / "net.ckpt"))
    network = trained_network(recipe, tmp_path / "net.ckpt")
    assert network(ms.Tensor(np.zeros(input_shape(recipe.data, 2), np.float32))).shape == (2, 17)
    assert not network.training


@pytest.mark.parametrize("family", sorted({load_recipe(path).network.name for path in RECIPES}))
def test_the_last_weights_of_a_classifier_are_those_of_its_classes(family: str) -> None:
    options = next(recipe.network for recipe in map(load_recipe, RECIPES) if recipe.network.name == family)
    last = build_network(options, 23).trainable_params()[-1]
    shapes = {"accuracy": (23,), "reconstruction_error": (784,), "bits_per_byte": (256, 128)}
    assert last.shape == shapes[METRIC_OF_NETWORK[family]]


def test_missing_or_unsuitable_checkpoints_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint .*none does not exist\."):
        network_file(tmp_path / "none")
    with pytest.raises(CheckpointError, match="has no checkpoint to resume from"):
        network_file(tmp_path)
    (tmp_path / "position.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"lacks network.ckpt\."):
        network_file(tmp_path)
    shutil.copy(run / "network.ckpt", tmp_path / "alone.ckpt")
    (tmp_path / "position.json").unlink()
    with pytest.raises(RecipeError, match=r"--recipe is needed: there is no position\.json or run"):
        find_checkpoint(tmp_path / "alone.ckpt", None, [])
    other = str(ROOT / "model_zoo/resnet/resnet20_digits_kfac.yaml")
    arguments = ["--checkpoint", str(run), "--output", str(tmp_path / "net.mindir"), "--recipe", other]
    capsys.readouterr()
    assert export.main(arguments) == 2
    assert re.fullmatch(
        r"error: checkpoint .*network.ckpt lacks parameter \S+ of the recipe's network\.\n",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "net.mindir").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--batch-size", "0"], "--batch-size must be at least 1"), ([], "--output must end in .mindir")],
)
def test_invalid_export_arguments_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        export.main(["--checkpoint", "runs/a", "--output", "net.onnx", *arguments])
    assert sentence in capsys.readouterr().err
