"""Recipes train and write all files of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor, int32, load, load_checkpoint, nn

from model_zoo.common.checkpoint.files import NETWORK_FILE
from model_zoo.common.curves import read_metrics
from model_zoo.common.errors import DataError
from model_zoo.common.evaluation import evaluate_checkpoint
from model_zoo.common.export import export_network, trained_network
from model_zoo.common.networks import create_network
from model_zoo.common.recipe import load_recipe, parse_recipe
from model_zoo.common.run_description import headline_metric
from model_zoo.common.run_options import RunOptions
from model_zoo.common.training import start_mindspore, train_recipe
from tests.model_zoo.synthetic_data import RECIPES, ROOT, write_cifar100
from tests.model_zoo.test_encoded import break_image

# Each method on one network; test_recipe_steps.py takes two steps of every recipe.
TRAINED = [
    path
    for path in RECIPES
    if "resnet20_digits" in path.stem
    or path.stem
    in ("autoencoder_mnist_kfac", "mlp_mnist14_sgdm", "resnet20_cifar10_adam", "vit_digits_adamw")
]
DIGITS_RECIPE = ROOT / "model_zoo/resnet/resnet20_digits_sgdm.yaml"
SMALL = ["epochs=2", "data.batch_size=10", "data.evaluation_batch_size=10"]


def small_recipe(path: Path, *overrides: str) -> object:
    depth = ["network.depth=8"] if "resnet" in path.stem else []
    if "vit" in path.stem:
        depth = ["network.depth=1", "network.width=8", "network.heads=2"]
    return load_recipe(path, [*SMALL, *depth, *overrides])


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
@pytest.mark.usefixtures("few_digits")
def test_a_recipe_trains_two_epochs_of_two_steps(
    path: Path, tmp_path: Path, cifar10_folder: Path, mnist_folder: Path
) -> None:
    folder = cifar10_folder if "cifar10" in path.stem else mnist_folder
    recipe = small_recipe(path)
    epochs = train_recipe(
        recipe, RunOptions(path.stem, folder, tmp_path / "out", log_every=1, progress=False)
    )
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert epochs[-1]["step"] >= 4
    assert all(np.isfinite([line["running_loss"], line[headline_metric(recipe)]]).all() for line in epochs)


def test_number_of_classes_comes_from_the_data(tmp_path: Path) -> None:
    path = ROOT / "model_zoo/vgg/tkfac/vgg16_cifar100_sgdm.yaml"
    small = ["mode=pynative", "network.depth=11", "network.width=2", "epochs=1", "evaluate=[]"]
    recipe = load_recipe(path, [*small, "data.batch_size=15"])
    folder = write_cifar100(tmp_path / "cifar100")
    train_recipe(recipe, RunOptions("run", folder, tmp_path / "out", progress=False))
    assert load_checkpoint(str(tmp_path / "out" / NETWORK_FILE))["fc.weight"].shape == (100, 16)


@pytest.mark.usefixtures("few_digits")
def test_pynative_mode_trains_as_graph_mode_does(tmp_path: Path) -> None:
    losses = []
    for mode in ("graph", "pynative"):
        recipe = small_recipe(DIGITS_RECIPE, f"mode={mode}")
        epochs = train_recipe(recipe, RunOptions("run", None, tmp_path / mode, progress=False))
        losses.append([line["running_loss"] for line in epochs])
    np.testing.assert_allclose(*losses, rtol=2e-3)


@pytest.mark.usefixtures("few_digits")
def test_run_is_reproducible(tmp_path: Path) -> None:
    runs = []
    for name in ("first", "second"):
        epochs = train_recipe(
            small_recipe(DIGITS_RECIPE), RunOptions("run", None, tmp_path / name, progress=False)
        )
        runs.append([(line["running_loss"], line["test_loss"]) for line in epochs])
    np.testing.assert_allclose(*runs, rtol=1e-4)


def test_the_seed_decides_the_initial_weights() -> None:
    weights = []
    for seed in (1, 2, 1):
        start_mindspore(small_recipe(DIGITS_RECIPE, f"seed={seed}"), "CPU")
        weights.append(create_network("mlp").trainable_params()[0].asnumpy())
    assert not np.array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])


@pytest.mark.usefixtures("few_digits")
def test_run_writes_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = small_recipe(DIGITS_RECIPE, "evaluate=[train,test]")
    returned = train_recipe(recipe, RunOptions("my run", None, tmp_path, log_every=2, progress=False))

    lines = read_metrics(tmp_path)
    assert [(line["kind"], line["epoch"], line["step"]) for line in lines] == [
        ("step", 1, 2),
        ("epoch", 1, 2),
        ("step", 2, 4),
        ("epoch", 2, 4),
    ]
    assert [line for line in lines if line["kind"] == "epoch"] == json.loads(json.dumps(returned))
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    first, last = returned
    assert 0 < first["first_step_seconds"] <= first["epoch_seconds"] <= first["seconds"] + 1e-4
    assert last["images_per_second"] == pytest.approx(20 / last["epoch_seconds"])
    # An epoch's mean over both steps is what its one step object, over the same two steps, says.
    assert lines[0]["running_loss"] == pytest.approx(first["running_loss"], rel=1e-5)
    assert {"train_loss", "train_accuracy", "test_loss", "test_accuracy"} <= set(last)

    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert run["recipe"]["optimizer"]["learning_rate"] == recipe.optimizer.learning_rate
    assert run["headline"] == "test_accuracy"
    assert run["data"] == {"title": "digits", "training_images": 20, "test_images": 10, "classes": 10}
    assert set(run["versions"]) == {"python", "ms_kfac", "mindspore", "numpy"}
    assert any(line.startswith("check_step ") for line in run["kernels"])
    assert run["machine"]["processors"] >= 1
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "network.ckpt").stat().st_size > 0

    printed = capsys.readouterr().out
    assert "my run: resnet (depth 8, width 1, shortcut identity), 75,290 weights" in printed
    assert "ONEDNN_MAX_CPU_ISA=" in printed
    assert f"test accuracy {last['test_accuracy']:.4g}" in printed


@pytest.mark.usefixtures("few_digits")
def test_a_kfac_run_prints_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = DIGITS_RECIPE.with_name("resnet20_digits_kfac.yaml")
    train_recipe(small_recipe(path, "epochs=1"), RunOptions("run", None, tmp_path, progress=False))
    printed = capsys.readouterr().out
    assert "layer1.0.conv1" in printed
    assert "bn1" in printed


def test_image_folder_run_reports_classes_and_broken_images(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"batch_size": 4, "evaluation_batch_size": 4, "image_size": 32, "resize": 32, "broken": "skip"}
    content = {
        "network": {"name": "resnet", "depth": 8},
        "data": {"name": "image_folder", **sizes},
        "optimizer": {"name": "sgdm", "learning_rate": 0.01},
        "epochs": 1,
    }
    broken = [break_image(image_folder / name) for name in ("train/bee/000.JPEG", "val/ant/000.JPEG")]
    output = tmp_path / "out"
    (epoch,) = train_recipe(parse_recipe(content), RunOptions("run", image_folder, output, progress=False))
    assert epoch["step"] == 3
    assert np.isfinite(epoch["test_loss"])

    data = json.loads((output / "run.json").read_text(encoding="utf-8"))["data"]
    assert (data["training_images"], data["test_images"]) == (12, 6)
    assert data["classes"] == {"ant": 0, "bee": 1, "cat": 2}
    assert list(data["broken_images"]) == [str(path) for path in broken]
    printed = capsys.readouterr().out
    assert "images of images: 12 training and 6 test images" in printed
    assert f"skipped broken images: 2\n  {broken[0]} can't be decoded" in printed

    evaluated = evaluate_checkpoint(
        parse_recipe(content), output / "network.ckpt", image_folder, "test", "CPU"
    )
    # The same weights and images; sums in float32 may be taken in another order.
    assert evaluated["loss"] == pytest.approx(epoch["test_loss"], rel=1e-5)
    assert f"skipped broken images: 1\n  {broken[1]} " in capsys.readouterr().out

    content["data"]["broken"] = "refuse"
    with pytest.raises(DataError, match=f"^{broken[0]} can't be decoded"):
        train_recipe(
            parse_recipe(content), RunOptions("run", image_folder, output, overwrite=True, progress=False)
        )


def test_a_language_model_trains_and_is_exported(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "model_zoo/gpt/gpt_stdlib_adamw.yaml"
    network = ["network.depth=1", "network.width=8", "network.heads=2", "network.context=6"]
    data = ["data.window=6", "data.batch_size=4", "data.epoch_windows=10", "data.evaluation_windows=3"]
    recipe = load_recipe(path, ["epochs=2", *network, *data])
    output = tmp_path / "out"
    first, last = train_recipe(recipe, RunOptions("run", sources, output, log_every=1, progress=False))
    assert (first["step"], last["step"]) == (2, 4)
    # Uniform over 256 bytes: log 256 nats, 8 bits.
    assert last["test_loss"] == pytest.approx(np.log(256), rel=0.1)
    for name in ("test", "running"):
        assert last[f"{name}_bits_per_byte"] == pytest.approx(last[f"{name}_loss"] / np.log(2), rel=1e-5)
    printed = capsys.readouterr().out
    assert "Python's standard library: 800 training and 400 test bytes" in printed
    described = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert described["headline"] == "test_bits_per_byte"
    assert (described["data"]["training_files"], described["data"]["test_files"]) == (2, 1)
    assert len(described["data"]["sha256"]) == 64

    evaluated = evaluate_checkpoint(recipe, output / NETWORK_FILE, sources, "test", "CPU")
    assert evaluated["bits_per_byte"] == pytest.approx(last["test_bits_per_byte"], rel=1e-5)
    shape = export_network(recipe, output / NETWORK_FILE, tmp_path / "net.mindir", 2, "CPU")
    assert shape == (2, 6)
    ids = Tensor(np.arange(12).reshape(2, 6), int32)
    exported = nn.GraphCell(load(str(tmp_path / "net.mindir")))(ids).asnumpy()
    # Sums of at most 32 products, possibly in another order.
    network = trained_network(recipe, output / NETWORK_FILE)
    np.testing.assert_allclose(exported, network(ids).asnumpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("few_digits")
def test_epoch_without_a_batch_is_refused(tmp_path: Path) -> None:
    recipe = small_recipe(DIGITS_RECIPE, "data.batch_size=21")
    with pytest.raises(
        DataError, match=r"digits has 20 training images, fewer than one batch \(data.batch_size 21\)"
    ):
        train_recipe(recipe, RunOptions("run", None, tmp_path))


def test_autoencoder_is_evaluated_on_training_images_and_classifier_on_test_images() -> None:
    autoencoder = ROOT / "model_zoo/autoencoder/autoencoder_mnist_kfac.yaml"
    assert headline_metric(load_recipe(autoencoder)) == "train_reconstruction_error"
    assert headline_metric(load_recipe(autoencoder, ["evaluate=[test]"])) == "test_reconstruction_error"
    assert headline_metric(load_recipe(DIGITS_RECIPE, ["evaluate=[]"])) == "running_accuracy"
