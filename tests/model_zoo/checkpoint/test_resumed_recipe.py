"""The recipe of a resumed run: the stored one, or one that differs only in epochs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_zoo import train
from model_zoo.common.checkpoint.files import Position, checkpoints_folder, new_checkpoint
from model_zoo.common.checkpoint.resume import differences, recipe_to_json, resumed_recipe
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import CheckpointError, RecipeError
from model_zoo.common.recipe import load_recipe, parse_recipe
from model_zoo.common.run_options import RunOptions
from tests.model_zoo.synthetic_data import RECIPES, ROOT

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml"
RUN = Path("runs/mine")


def position_of(path: Path, *overrides: str, epoch: int = 3, step_of_epoch: int = 2) -> Position:
    recipe = recipe_to_json(load_recipe(path, overrides))
    options = RunOptions("mine", None, RUN).stored()
    return Position(epoch, step_of_epoch, 10 * epoch + step_of_epoch, 10, 1, {}, options, recipe)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_stored_recipe_round_trips(path: Path) -> None:
    recipe = load_recipe(path)
    assert parse_recipe(json.loads(json.dumps(recipe_to_json(recipe)))) == recipe
    assert differences(recipe, recipe) == []


def test_resumed_run_keeps_its_stored_recipe() -> None:
    position = position_of(MLP, "epochs=9", "optimizer.damping=0.7")
    assert resumed_recipe(RUN, position, None, []) == load_recipe(MLP, ["epochs=9", "optimizer.damping=0.7"])
    assert resumed_recipe(RUN, position, None, ["epochs=12"]).epochs == 12
    assert resumed_recipe(RUN, position, MLP, ["optimizer.damping=0.7", "epochs=4"]).epochs == 4


def test_resume_with_another_recipe_is_refused_with_the_differences() -> None:
    position = position_of(MLP, "optimizer.damping=0.7")
    with pytest.raises(CheckpointError) as refused:
        resumed_recipe(RUN, position, None, ["optimizer.damping=0.1", "seed=5", "epochs=50"])
    assert str(refused.value) == (
        "run runs/mine can't be resumed with another recipe: optimizer.damping was 0.7 and is 0.1; "
        "seed was 1 and is 5. Only epochs may change."
    )


def test_missing_keys_are_differences() -> None:
    before, now = load_recipe(MLP), load_recipe(MLP.with_name("mlp_mnist14_sgdm.yaml"))
    found = differences(before, now)
    assert "optimizer.name was 'kfac' and is 'sgdm'" in found
    (damping,) = [text for text in found if text.startswith("optimizer.damping was ")]
    assert damping.endswith(" and is absent")


def test_resume_with_fewer_epochs_than_complete_is_refused() -> None:
    position = position_of(MLP, epoch=3, step_of_epoch=2)
    assert resumed_recipe(RUN, position, None, ["epochs=4"]).epochs == 4
    with pytest.raises(CheckpointError, match="can't be resumed for 3 epochs: it has reached epoch 4"):
        resumed_recipe(RUN, position, None, ["epochs=3"])
    at_the_end = position_of(MLP, epoch=3, step_of_epoch=0)
    assert resumed_recipe(RUN, at_the_end, None, ["epochs=3"]).epochs == 3


def test_stored_recipe_that_is_no_longer_accepted_is_reported() -> None:
    position = position_of(MLP)
    position.recipe["optimizer"]["gone"] = 1
    with pytest.raises(
        CheckpointError, match=r"recipe that this version does not accept: optimizer\.gone is not a key"
    ):
        resumed_recipe(RUN, position, None, [])
    with pytest.raises(RecipeError, match="epochs is -1"):
        resumed_recipe(RUN, position_of(MLP), None, ["epochs=-1"])


def test_resume_errors_are_reported_before_mindspore_is_imported(tmp_path: Path) -> None:
    with new_checkpoint(checkpoints_folder(tmp_path, Shard()), position_of(MLP)):
        pass
    code = (
        "import sys; from model_zoo.train import main; status = main(sys.argv[1:]);"
        "sys.exit(status if 'mindspore' not in sys.modules else 99)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--resume", str(tmp_path), "--set", "optimizer.momentum=0.5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "optimizer.momentum was 0.9 and is 0.5. Only epochs may change." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one of --recipe and --resume is required"),
        (["--resume", "runs/a", "--output", "runs/b"], "it can't be combined with --output or --compare"),
        (
            ["--recipe", str(MLP), "--checkpoint-every", "often"],
            "must be an interval such as 2, 2epochs or 500steps",
        ),
        (["--recipe", str(MLP), "--keep", "0"], "argument --keep: must be at least 1"),
        (["--recipe", str(MLP), "--keep", "3"], "--keep needs --checkpoint-every"),
    ],
)
def test_invalid_training_arguments_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(arguments)
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_resumed_run_refuses_an_option_that_its_others_make_useless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "stored_run", lambda folder: position_of(MLP))
    arguments = ["--resume", str(tmp_path), "--check", "--monitor-eigenvalues"]
    assert train.main(arguments) == 2
    sentence = f"error: --monitor-eigenvalues needs --monitor-every, which {tmp_path} lacks.\n"
    assert capsys.readouterr().err == sentence
    assert train.main([*arguments, "--monitor-every", "5"]) == 0
