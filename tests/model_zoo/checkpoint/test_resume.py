"""A killed and resumed run equals an uninterrupted one, bit for bit on CPU."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mindspore.common.api import _CellGraphExecutor

from model_zoo.common.checkpoint.files import (
    checkpoint_at,
    checkpoints_folder,
    newest_checkpoint,
    read_position,
    steps_in,
)
from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.curves import read_metrics
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import CheckpointError
from model_zoo.common.methods import METHODS
from model_zoo.common.recipe import Recipe, load_recipe
from model_zoo.common.run_options import RunOptions
from model_zoo.common.training import train_recipe
from tests.model_zoo.checkpoint.run_comparison import as_if_killed, assert_same_bits, metrics_without_times
from tests.model_zoo.synthetic_data import ROOT, write_mnist

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml"
MLP_SGDM = MLP.with_name("mlp_mnist14_sgdm.yaml")
# 40 images, so ten steps per epoch; checkpoints fall between the refreshes of statistics and of inverses.
SHORT = ["epochs=2", "data.batch_size=4", "schedule={name: cosine}"]
SECOND_ORDER = [
    "optimizer.factor_interval={0: 2}",
    "optimizer.inverse_interval={0: 5}",
    "optimizer.averaging=0.9",
]
RUNS = {
    **{name: SECOND_ORDER for name in METHODS},
    "kfac": [*SECOND_ORDER, "optimizer.fisher=sampled"],
    "tkfac": [*SECOND_ORDER, "optimizer.damping_mode=automatic"],
    "spngd": [
        f"optimizer.{key}" for key in ("similarity=9", "factor_interval=null", "inverse_interval=null")
    ],
}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist") / "idx")


def options_for(output: Path, data_dir: Path | None, every: str = "3steps") -> RunOptions:
    return RunOptions(
        "run",
        data_dir,
        output,
        log_every=2,
        progress=False,
        checkpoint_every=CheckpointInterval.parse(every),
        keep=100,
    )


def assert_resumes(recipe: Recipe, options: RunOptions, step: int, tmp_path: Path) -> None:
    """Trains a run, resumes a copy of it from a checkpoint, and compares both."""
    epochs = train_recipe(recipe, options)
    copy = as_if_killed(options.output, tmp_path / "killed", step)
    again = train_recipe(recipe, replace(options, output=copy, resume=True))
    assert_same_bits(copy, options.output)
    assert metrics_without_times(copy) == metrics_without_times(options.output)
    assert [line["test_loss"] for line in again] == [line["test_loss"] for line in epochs]


@pytest.mark.parametrize("name", RUNS)
def test_every_method_resumes_within_an_epoch(name: str, mnist: Path, tmp_path: Path) -> None:
    recipe = load_recipe(MLP, [*SHORT, f"optimizer.name={name}", *RUNS[name]])
    assert_resumes(recipe, options_for(tmp_path / "whole", mnist), 12, tmp_path)


def test_first_order_run_resumes_in_pynative_mode(mnist: Path, tmp_path: Path) -> None:
    recipe = load_recipe(MLP.with_name("mlp_mnist14_adam.yaml"), [*SHORT, "mode=pynative"])
    assert_resumes(recipe, options_for(tmp_path / "whole", mnist), 6, tmp_path)


@pytest.mark.usefixtures("few_digits")
def test_batch_norm_augmentation_and_averages_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(
        ROOT / "model_zoo/resnet/resnet20_digits_kfac.yaml",
        ["epochs=3", "network.depth=8", "data.batch_size=4", "data.flip=true", *SECOND_ORDER],
    )
    assert_resumes(recipe, options_for(tmp_path / "whole", None), 9, tmp_path)
    assert f"resumed after 9 steps from {tmp_path / 'killed'}" in capsys.readouterr().out


def test_finished_run_resumes_for_more_epochs(mnist: Path, tmp_path: Path) -> None:
    """With a constant learning rate, two epochs equal one epoch resumed for another."""
    recipe = load_recipe(MLP_SGDM, ["epochs=2", "data.batch_size=4", "schedule={name: constant}"])
    options = options_for(tmp_path / "whole", mnist, "1epoch")
    train_recipe(recipe, options)
    short = replace(options, output=tmp_path / "short")
    train_recipe(replace(recipe, epochs=1), short)
    train_recipe(recipe, replace(short, resume=True))
    assert_same_bits(short.output, options.output)
    assert metrics_without_times(short.output) == metrics_without_times(options.output)


def test_resuming_a_finished_run_only_rewrites_its_results(mnist: Path, tmp_path: Path) -> None:
    recipe = load_recipe(MLP_SGDM, [*SHORT, "epochs=1"])
    options = options_for(tmp_path / "run", mnist, "1epoch")
    epochs = train_recipe(recipe, options)
    metrics_log = (options.output / "metrics.jsonl").read_bytes()
    network = (options.output / "network.ckpt").read_bytes()
    (options.output / "network.ckpt").unlink()
    assert train_recipe(recipe, replace(options, resume=True)) == epochs
    assert (options.output / "metrics.jsonl").read_bytes() == metrics_log
    assert (options.output / "network.ckpt").read_bytes() == network


@pytest.mark.parametrize(
    ("every", "keep", "steps"),
    [("3steps", 100, [3, 6, 9, 12, 15, 18, 20]), ("4steps", 2, [16, 20]), ("2epochs", 1, [20])],
)
def test_checkpoints_are_written_when_due_and_at_the_end(
    every: str, keep: int, steps: list[int], mnist: Path, tmp_path: Path
) -> None:
    options = replace(options_for(tmp_path / "run", mnist, every), keep=keep)
    train_recipe(load_recipe(MLP_SGDM, SHORT), options)
    folder = checkpoints_folder(options.output, Shard())
    assert steps_in(folder) == steps
    last = read_position(newest_checkpoint(options.output, Shard()))
    assert (last.epoch, last.step_of_epoch, last.steps_per_epoch) == (2, 0, 10)
    written = (options.output / "metrics.jsonl").read_bytes()
    assert (newest_checkpoint(options.output, Shard()) / "metrics.jsonl").read_bytes() == written


def test_a_state_of_other_shapes_is_refused(mnist: Path, tmp_path: Path) -> None:
    recipe = load_recipe(MLP, [*SHORT, "epochs=1"])
    options = options_for(tmp_path / "run", mnist, "1epoch")
    train_recipe(recipe, options)
    plain_sgd = load_recipe(MLP_SGDM, [*SHORT, "epochs=1"])
    with pytest.raises(CheckpointError, match="lacks state global_step, which this recipe needs"):
        train_recipe(plain_sgd, replace(options, resume=True))
    another = load_recipe(MLP, [*SHORT, "epochs=1", "optimizer.averaging=0.5"])
    with pytest.raises(CheckpointError, match=r"state.ckpt lacks state polyak\."):
        train_recipe(another, replace(options, resume=True))


def test_epochs_share_one_compiled_step(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_graph = _CellGraphExecutor.compile

    def count(self: object, *arguments: object, **options: object) -> tuple[str, bool]:
        phase, new = compile_graph(self, *arguments, **options)
        compiled.extend([phase] if new else [])
        return phase, new

    monkeypatch.setattr(_CellGraphExecutor, "compile", count)
    counts = []
    for epochs in (1, 3):
        recipe = load_recipe(MLP_SGDM, [*SHORT, f"epochs={epochs}"])
        train_recipe(recipe, replace(options_for(tmp_path / f"{epochs}", mnist), checkpoint_every=None))
        counts.append(len(compiled))
        compiled.clear()
    assert counts[0] == counts[1] > 0


def test_killed_process_is_resumed_by_another(tmp_path: Path) -> None:
    """Kills the command with SIGKILL in the middle of an epoch."""
    data = write_mnist(tmp_path / "idx", train=800)
    command = [sys.executable, "-m", "model_zoo.train", "--no-progress"]
    recipe = ["--recipe", str(MLP), "--data-dir", str(data), "--log-every", "7"]
    for override in ["epochs=3", "data.batch_size=4", *SECOND_ORDER]:
        recipe += ["--set", override]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # This run writes only one checkpoint, at its end.
    arguments = ["--output", str(whole), "--checkpoint-every", "3epochs"]
    subprocess.run([*command, *recipe, *arguments], cwd=ROOT, check=True, capture_output=True)

    arguments = ["--output", str(killed), "--checkpoint-every", "37steps"]
    process = subprocess.Popen([*command, *recipe, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    awaited = checkpoint_at(checkpoints_folder(killed, Shard()), 7 * 37)
    end = time.monotonic() + 240
    while not awaited.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    position = read_position(newest_checkpoint(killed, Shard()))
    assert position.step_of_epoch > 0 and position.epoch < 3
    with (killed / "metrics.jsonl").open("a", encoding="utf-8") as metrics_log:
        metrics_log.write('{"kind": "step", "epo')

    done = subprocess.run(
        [*command, "--resume", str(killed)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert re.search(rf"^resumed after {position.step} steps from ", done.stdout, re.MULTILINE)
    assert_same_bits(killed, whole)
    assert metrics_without_times(killed) == metrics_without_times(whole)
    seconds = [line["seconds"] for line in read_metrics(killed)]
    assert seconds == sorted(seconds)
