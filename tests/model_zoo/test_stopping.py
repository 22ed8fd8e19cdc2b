"""Signals and errors of the operating system: one sentence, an exit status, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from model_zoo import convert, evaluate, export, train
from model_zoo.common.checkpoint.files import checkpoints_folder, newest_checkpoint, steps_in
from model_zoo.common.checkpoint.manifest import damage
from model_zoo.common.command_line import describe_os_error, run_command
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import UsageError
from model_zoo.common.interruption import StopSignals
from model_zoo.common.metrics_log import MetricsLog
from model_zoo.common.recipe import load_recipe
from model_zoo.common.run_lock import LOCK_FILE, Owner, process_start
from model_zoo.common.run_options import RunOptions
from model_zoo.common.training import train_recipe
from tests.model_zoo.checkpoint.run_comparison import assert_same_bits, metrics_without_times
from tests.model_zoo.synthetic_data import ROOT, write_mnist
from tests.support.signals import send

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_sgdm.yaml"


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist") / "idx")


def arguments(output: Path, data: Path, *more: str) -> list[str]:
    """Two epochs of ten steps; a checkpoint after each epoch."""
    settings = [part for text in ("epochs=2", "data.batch_size=4") for part in ("--set", text)]
    common = ["--recipe", str(MLP), "--data-dir", str(data), "--no-progress", *settings]
    return [*common, "--output", str(output), "--checkpoint-every", "1epoch", *more]


@pytest.fixture(scope="module")
def whole(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert train.main(arguments(output, mnist)) == 0
    return output


def assert_one_sentence(err: str) -> str:
    assert re.fullmatch(r"(SIG\w+: [^\n]*\n)?error: [^\n]+\.\n", err), err
    return err


@pytest.mark.parametrize(
    ("number", "status", "step"),
    [(signal.SIGINT, 130, 7), (signal.SIGTERM, 143, 10), (signal.SIGINT, 130, 20)],
)
def test_a_signal_ends_a_run_that_resumes_to_the_same_bits(
    number: signal.Signals,
    status: int,
    step: int,
    mnist: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    on_step_end = MetricsLog.on_train_step_end

    def send_after_step(self: MetricsLog, run_context: Any) -> None:
        on_step_end(self, run_context)
        if run_context.original_args().cur_step_num == step:
            send(number)
            time.sleep(0.1)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "on_train_step_end", send_after_step)
        assert train.main(arguments(output, mnist)) == status
    err = assert_one_sentence(capfd.readouterr().err)
    assert f"{number.name}: stopping after this step; a second signal stops at once\n" in err
    assert err.endswith(f"after step {step}: --resume {output} continues it after step {step}.\n")
    assert not (output / LOCK_FILE).exists() and not (output / "network.ckpt").exists()
    assert train.main(["--resume", str(output), "--no-progress"]) == 0
    assert_same_bits(output, whole)
    assert metrics_without_times(output) == metrics_without_times(whole)


def test_ctrl_c_in_the_middle_of_a_step_exits_with_130(mnist: Path, tmp_path: Path) -> None:
    """MindSpore's handler would turn the signal into SIGTERM."""
    output = tmp_path / "run"
    more = ["--set", "epochs=10000", "--log-every", "1"]
    command = [sys.executable, "-m", "model_zoo.train", *arguments(output, mnist, *more)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    log, end = output / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert re.search(r"error: stopped by SIGINT after step [\d,]+: --resume .* continues it after step", err)
    assert damage(newest_checkpoint(output, Shard())) is None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_training_ends_the_command_at_once(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(signals: StopSignals) -> int:
        send(number)
        time.sleep(20)
        raise AssertionError

    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    begun = time.monotonic()
    assert run_command(command) == status
    assert time.monotonic() - begun < 10
    assert capsys.readouterr().err == f"error: stopped by {number.name}.\n"
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)] == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_a_second_signal_ends_a_step_that_hangs() -> None:
    code = (
        "import os, signal, time; from model_zoo.common.interruption import StopSignals\n"
        "with StopSignals() as signals, signals.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    while signals.received is None: time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, timeout=50
    )
    assert done.returncode == 143, done.stderr


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Lets writes beyond a size fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_during_training_loses_nothing(
    mnist: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_epoch_begin = MetricsLog.on_train_epoch_begin
    output = tmp_path / "run"

    def fill_the_disk(self: MetricsLog, run_context: Any) -> None:
        on_epoch_begin(self, run_context)
        if run_context.original_args().cur_epoch_num == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))

    with monkeypatch.context() as patch, files_no_larger_than(2**40):
        patch.setattr(MetricsLog, "on_train_epoch_begin", fill_the_disk)
        assert train.main(arguments(output, mnist)) == 1
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"error: training has stopped: .*{os.strerror(errno.EFBIG)}; --resume .* after step 10\.", sentence
    )
    assert steps_in(checkpoints_folder(output, Shard())) == [10]
    assert not (output / LOCK_FILE).exists()
    assert train.main(["--resume", str(output), "--no-progress"]) == 0
    assert_same_bits(output, whole)


def test_a_failed_resume_removes_nothing(
    mnist: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "state.ckpt")

    with monkeypatch.context() as patch:
        patch.setattr("model_zoo.common.training.load_state", fail)
        assert train.main(["--resume", str(whole), "--set", "epochs=3", "--no-progress"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: state.ckpt: Input/output error."
    with files_no_larger_than(600):
        assert train.main(["--resume", str(whole), "--set", "epochs=3", "--no-progress"]) == 2
    assert os.strerror(errno.EFBIG) in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_a_finished_run_is_overwritten_only_when_asked(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    once = ["--set", "epochs=1"]
    assert train.main(arguments(output, mnist, *once)) == 0
    capsys.readouterr()
    for more in ([], ["--check"]):
        assert train.main(arguments(output, mnist, *once, *more)) == 2
        assert "--overwrite replaces it" in assert_one_sentence(capsys.readouterr().err)
    assert train.main(arguments(output, mnist, *once, "--overwrite", "--set", "seed=5")) == 0
    assert steps_in(checkpoints_folder(output, Shard())) == [10]
    assert damage(output) is None and damage(newest_checkpoint(output, Shard())) is None


def test_a_folder_in_use_is_refused(mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A parent of this process stands in for another run."""
    owner = Owner(os.getppid(), socket.gethostname(), process_start(os.getppid()))
    output = tmp_path / "run"
    output.mkdir()
    (output / LOCK_FILE).write_text(json.dumps(asdict(owner)))
    before = {path: path.read_bytes() for path in output.iterdir()}
    for command in (arguments(output, mnist), ["--resume", str(output)]):
        for more in ([], ["--check"]):
            assert train.main([*command, *more]) == 2
            assert f"{output} is in use by process {owner.pid}" in assert_one_sentence(
                capsys.readouterr().err
            )
    # The command line asks before MindSpore is loaded; the training itself asks again.
    with pytest.raises(UsageError, match="is in use by"):
        train_recipe(load_recipe(MLP), RunOptions("run", mnist, output))
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def bad_path(kind: str, folder: Path) -> Path:
    if kind == "a file in the path":
        (folder / "file").write_text("")
        return folder / "file" / "below.mindir"
    if kind == "a name that is too long":
        return folder / (300 * "n" + ".mindir")
    (folder / "link.mindir").symlink_to("link.mindir")
    return folder / "link.mindir"


OPTIONS: dict[tuple[str, str], Sequence[str]] = {
    ("train", "--recipe"): (),
    ("train", "--output"): ("--recipe", str(MLP), "--data-dir", "MNIST"),
    ("train", "--data-dir"): ("--recipe", str(MLP), "--output", "OUT"),
    ("train", "--resume"): (),
    ("evaluate", "--checkpoint"): (),
    ("evaluate", "--recipe"): ("--checkpoint", "WHOLE"),
    ("evaluate", "--data-dir"): ("--checkpoint", "WHOLE"),
    ("export", "--checkpoint"): ("--output", "OUT.mindir"),
    ("export", "--output"): ("--checkpoint", "WHOLE"),
    ("convert", "--images"): ("--output", "OUT"),
    ("convert", "--output"): ("--images", "IMAGES", "--shards", "1"),
}
COMMANDS = {"train": train, "evaluate": evaluate, "export": export, "convert": convert}


@pytest.mark.parametrize("kind", ["a file in the path", "a name that is too long", "a link to itself"])
@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_paths_that_the_system_refuses_are_told_in_a_sentence(
    command: str,
    option: str,
    kind: str,
    mnist: Path,
    whole: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if (command, option, kind) == ("export", "--output", "a link to itself"):
        pytest.skip("the link is replaced by the file")
    folder = tmp_path / "paths"
    folder.mkdir()
    path = bad_path(kind, folder)
    places = {"MNIST": mnist, "WHOLE": whole, "IMAGES": image_folder}
    others = [str(places.get(text, text)) for text in OPTIONS[command, option]]
    others = [str(folder / text) if text.startswith("OUT") else text for text in others]
    before = sorted(folder.iterdir())
    assert COMMANDS[command].main([*others, option, str(path)]) == 2
    assert_one_sentence(capsys.readouterr().err)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device"),
        (OSError(errno.EXDEV, "Invalid link", "a", None, "b"), "a and b: Invalid link"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (OSError("libgomp.so.1 is missing"), "libgomp.so.1 is missing"),
        (BrokenPipeError(), "BrokenPipeError"),
    ],
)
def test_errors_of_the_system_name_the_file(error: OSError, sentence: str) -> None:
    assert describe_os_error(error) == sentence
