"""Trainings of recipes: which are made again, and which ends are results."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.support import zoo_runs
from benchmarks.support.zoo_runs import ZooRun, train
from model_zoo.common.checkpoint.files import METRICS_FILE, RUN_FILE
from model_zoo.common.checkpoint.manifest import MANIFEST_FILE
from model_zoo.common.recipe import load_recipe
from model_zoo.common.run_description import describe_run, write_description
from tests.model_zoo.synthetic_data import ROOT

RECIPE = ROOT / "model_zoo/resnet/resnet20_digits_smkfac.yaml"


class Trainer:
    """Stands in for the processes: writes what a run leaves.

    Attributes:
        commands: the command lines.
        loss: the loss of each epoch.
        status: the exit status.
        finishes: whether the last file is written.
    """

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.loss = 0.5
        self.status = 0
        self.finishes = True

    def run(self, command: list[str], **options: object) -> SimpleNamespace:
        self.commands.append(command)
        pairs = list(zip(command, command[1:]))
        settings = [value for key, value in pairs if key == "--set"]
        output = Path(dict(pairs)["--output"])
        recipe = load_recipe(Path(dict(pairs)["--recipe"]), settings)
        output.mkdir(parents=True, exist_ok=True)
        (output / MANIFEST_FILE).unlink(missing_ok=True)
        write_description(output / RUN_FILE, describe_run("run", recipe, "CPU"))
        lines = [{"kind": "epoch", "epoch": number + 1, "loss": self.loss} for number in range(recipe.epochs)]
        (output / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
        if self.finishes and self.status == 0:
            (output / MANIFEST_FILE).touch()
        return SimpleNamespace(returncode=self.status, stdout="", stderr="noise\nerror: broken\n")


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    # Not the function of the standard library, which run.json's description of the machine needs.
    monkeypatch.setattr(zoo_runs, "subprocess", SimpleNamespace(run=made.run))
    return made


def train_in(folder: Path, *settings: str) -> ZooRun:
    return train(RECIPE, settings, None, folder / "run", "loss")


def test_a_finished_run_counts_for_the_same_recipe_alone(tmp_path: Path, trainer: Trainer) -> None:
    for epochs, commands in ((1, 1), (1, 1), (3, 2), (3, 2), (1, 3)):
        run = train_in(tmp_path, f"epochs={epochs}")
        assert [line["epoch"] for line in run.epochs] == list(range(1, epochs + 1))
        assert run.description["recipe"]["epochs"] == epochs
        assert run.error == ""
        assert len(trainer.commands) == commands
    train_in(tmp_path, "epochs=1", "optimizer.full_refreshes=30")
    assert len(trainer.commands) == 4
    # The folder may hold a finished run.
    assert all("--overwrite" in command for command in trainer.commands)


def test_an_unfinished_run_is_made_again(tmp_path: Path, trainer: Trainer) -> None:
    trainer.finishes = False
    train_in(tmp_path)
    train_in(tmp_path)
    assert len(trainer.commands) == 2


def test_failures_are_told_and_ends_by_a_signal_end_the_command(tmp_path: Path, trainer: Trainer) -> None:
    trainer.loss = float("nan")
    assert train_in(tmp_path) == ZooRun([], "not finite")
    trainer.status = 1
    assert train_in(tmp_path, "epochs=2") == ZooRun([], "error: broken")
    for status, sentence in ((-9, "run was ended by SIGKILL"), (2, "error: run could not start: broken")):
        trainer.status = status
        with pytest.raises(SystemExit, match=sentence):
            train_in(tmp_path, "epochs=2")
