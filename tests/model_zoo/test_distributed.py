"""Runs of several processes by scripts/run_distributed_train.sh, on synthetic MNIST."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from model_zoo import train
from model_zoo.common.checkpoint.files import newest_checkpoint, require_ranks
from model_zoo.common.curves import read_metrics
from model_zoo.common.data.shards import Shard
from model_zoo.common.distribution import set_device
from model_zoo.common.errors import CheckpointError, UsageError
from model_zoo.common.master_port import listening_port
from model_zoo.common.run_lock import LOCK_FILE
from tests.model_zoo.synthetic_data import ROOT, write_mnist
from tests.support.traps import set_traps

# Timeout of a launch, many times its duration on two processors.
SECONDS = 400
RECIPES = ROOT / "model_zoo/mlp"
SMALL = ["--set", "data.batch_size=10", "--set", "data.evaluation_batch_size=7", "--log-every", "2"]

# Not in parallel, because each launch has four processes.
pytestmark = pytest.mark.xdist_group("distributed")


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("data") / "idx")


def command(script: str, recipe: str, data: Path, output: Path, *arguments: str) -> list[str]:
    files = ["--recipe", RECIPES / f"{recipe}.yaml", "--data-dir", data, "--output", output]
    return ["bash", str(ROOT / "scripts" / script), *map(str, files), *SMALL, *arguments]


def launch(arguments: list[str], folder: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        cwd=folder,
        env={**os.environ, "MS_KFAC_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(launched: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and both outputs. A hanging run is terminated with its workers."""
    try:
        output, errors = launched.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        launched.terminate()
        output, errors = launched.communicate(timeout=30)
        pytest.fail(f"the run took more than {SECONDS} s:\n{output}{errors}")
    return launched.returncode, output, errors


def workers_of(output: Path) -> list[int]:
    """Processes that still run with this output folder on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"train" in words and str(output).encode() in words:
            found.append(int(folder.name))
    return found


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    for process in workers_of(tmp_path / "out"):
        os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(
    ("recipe", "options", "said", "resumed"),
    [
        ("mlp_mnist14_sgdm", [], "optimizer: sgdm", False),
        (
            "mlp_mnist14_kfac",
            ["--set", "optimizer.inverse_interval={0: 3}", "--set", "parallel.exchange=gradients"],
            "2 ranks by all_reduce, exchange 'gradients'",
            True,
        ),
    ],
)
def test_two_processes_train_like_one(
    recipe: str, options: list[str], said: str, resumed: bool, mnist: Path, tmp_path: Path, output: Path
) -> None:
    epochs = [*options, "--set", "epochs=2", "--set", "evaluate=[train,test]"]
    alone = command("run_standalone_train.sh", recipe, mnist, tmp_path / "alone", *epochs)
    status, _, errors = finish(launch(alone))
    assert status == 0, errors
    both = command("run_distributed_train.sh", recipe, mnist, output, *epochs, "--worker-num", "2")
    if resumed:
        first = [*both, "--set", "epochs=1", "--checkpoint-every", "1epochs"]
        status, printed, errors = finish(launch(first))
        assert status == 0, printed + errors
        logs = {log.name: log.read_bytes() for log in (output / "logs").iterdir()}
        resume = [*both[:2], "--resume", str(output), "--set", "epochs=2", "--worker-num"]
        status, printed, errors = finish(launch([*resume, "5"]))
        assert (status, printed) == (2, "")
        assert errors.endswith(f"of run {output} were written by 2 processes: 5 can't resume it.\n")
        assert {log.name: log.read_bytes() for log in (output / "logs").iterdir()} == logs
        both = [*resume, "2"]
    status, printed, errors = finish(launch(both))
    assert status == 0, printed + errors
    assert said in printed
    assert ("resumed after 4 steps" in printed) is resumed

    weights = [ms.load_checkpoint(str(folder / "network.ckpt")) for folder in (tmp_path / "alone", output)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        # Sums in another order: 8 steps, each off by some units of float32's 6e-8 of values around 1.
        np.testing.assert_allclose(weights[1][name].asnumpy(), weight.asnumpy(), rtol=0, atol=1e-5)

    lines = [read_metrics(folder) for folder in (tmp_path / "alone", output)]
    assert [(line["kind"], line["step"]) for line in lines[0]] == [
        (line["kind"], line["step"]) for line in lines[1]
    ]
    for one, two in zip(*lines):
        metrics = [key for key in one if key.endswith(("loss", "accuracy"))]
        assert metrics
        # The same images in other parts, with weights that differ as above; accuracies are shares of a batch.
        assert [two[key] for key in metrics] == pytest.approx([one[key] for key in metrics], abs=1e-4)

    if resumed:
        assert {log.name: log.read_bytes() for log in (output / "logs/1").iterdir()} == logs
    assert printed.count("epoch 2/2") == 1
    assert "epoch" not in (output / "logs/worker_1.log").read_text()
    assert json.loads((output / "run.json").read_text())["recipe"]["parallel"]["batch_norm"] == "averaged"
    assert workers_of(output) == []


def test_failing_worker_ends_the_others_and_sets_the_status(mnist: Path, output: Path) -> None:
    elsewhere = ["--data-dir", str(output), "--worker-num", "2"]
    status, printed, errors = finish(
        launch(command("run_distributed_train.sh", "mlp_mnist14_sgdm", mnist, output, *elsewhere))
    )
    assert status == 2, printed + errors
    sentence = f"error: MNIST was not found: neither {output} nor"
    assert sentence in printed
    assert re.search(r"^error: rank [01] ended with status 2$", errors, re.MULTILINE)
    assert f"worker_1.log: {sentence}" in errors
    assert errors.endswith(f"error: training failed; the logs are in {output}/logs\n")
    assert workers_of(output) == []


@pytest.mark.parametrize(
    ("killed", "status", "sentence"),
    [
        ("RANK_ID=1", 137, "error: rank 1 was ended by SIGKILL, as the system does when memory runs out\n"),
        ("MS_ROLE=MS_SCHED", 1, "error: the scheduler was ended by SIGKILL"),
    ],
)
def test_a_killed_process_is_named(
    killed: str, status: int, sentence: str, mnist: Path, output: Path, tmp_path: Path
) -> None:
    (tmp_path / "trapped").mkdir()
    set_traps(tmp_path / "trapped", tmp_path / "sprung")
    endless = ["--set", "epochs=1000000", "--worker-num", "2"]
    launched = launch(
        command("run_distributed_train.sh", "mlp_mnist14_sgdm", mnist, output, *endless), tmp_path / "trapped"
    )
    deadline = time.monotonic() + SECONDS
    while len(workers_of(output)) < 4:
        assert launched.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    # The launcher looks for them twice a second.
    time.sleep(2.5)
    (process,) = (
        process
        for process in workers_of(output)
        if killed.encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    )
    os.kill(process, signal.SIGKILL)
    before = time.monotonic()
    ended, printed, errors = finish(launched)
    assert ended == status, printed + errors
    # Two polls of msrun and of the launcher, and the end of processes on a busy machine.
    assert time.monotonic() - before < 20
    assert sentence in errors
    assert workers_of(output) == []
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_workers(sent: int, status: int, mnist: Path, output: Path) -> None:
    endless = ["--set", "epochs=1000000", "--worker-num", "2"]
    launched = launch(command("run_distributed_train.sh", "mlp_mnist14_sgdm", mnist, output, *endless))
    deadline = time.monotonic() + SECONDS
    while len(workers_of(output)) < 3:
        assert launched.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    if sent == signal.SIGINT:
        # Like a terminal, signals the foreground group, not the workers, which have their own sessions.
        os.killpg(launched.pid, sent)
    else:
        launched.send_signal(sent)
    assert launched.wait(timeout=60) == status
    assert workers_of(output) == []
    finish(launched)


def test_a_signal_during_training_leaves_a_checkpoint_of_all_ranks(mnist: Path, output: Path) -> None:
    endless = ["--set", "epochs=1000000", "--checkpoint-every", "1000epochs", "--worker-num", "2"]
    launched = launch(command("run_distributed_train.sh", "mlp_mnist14_sgdm", mnist, output, *endless))
    log, deadline = output / "metrics.jsonl", time.monotonic() + SECONDS
    while not (log.exists() and log.stat().st_size):
        assert launched.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    # As a terminal does.
    os.killpg(launched.pid, signal.SIGINT)
    status, printed, errors = finish(launched)
    assert (status, errors) == (130, ""), printed + errors
    assert workers_of(output) == [] and not (output / LOCK_FILE).exists()
    checkpoints = [newest_checkpoint(output, Shard(rank, 2)) for rank in range(2)]
    (step,) = {int(checkpoint.name.removeprefix("step_")) for checkpoint in checkpoints}
    stopped = (
        f"error: stopped by SIGINT after step {step:,}: --resume {output} continues it after step {step:,}."
    )
    assert printed.endswith(f"{stopped}\n"), printed


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("parallel.exchange=weights", "parallel.exchange is 'weights'; accepted: inverses or gradients.\n"),
        ("data.batch_size=9", "error: data.batch_size 9 can't be divided equally among 2 processes.\n"),
    ],
)
def test_what_can_be_known_is_reported_once_before_workers_start(
    mistake: str, sentence: str, mnist: Path, output: Path
) -> None:
    wrong = ["--set", mistake, "--worker-num", "2"]
    status, printed, errors = finish(
        launch(command("run_distributed_train.sh", "mlp_mnist14_sgdm", mnist, output, *wrong))
    )
    assert (status, printed) == (2, "")
    assert errors.endswith(sentence)
    assert errors.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("address", ["a..b", "x" * 70])
def test_an_address_that_is_no_name_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"--master-addr .* can't be found"):
        listening_port(address, 0)


def test_a_busy_port_is_refused_and_check_starts_nothing(mnist: Path, output: Path) -> None:
    base = command("run_distributed_train.sh", "mlp_mnist14_sgdm", mnist, output, "--worker-num", "2")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        status, printed, errors = finish(launch([*base, "--master-port", port]))
    assert (status, printed) == (2, "")
    sentence = f"--master-port {port} of 127.0.0.1 can't be used: Address already in use; choose another one."
    assert errors == f"error: {sentence}\n"
    assert finish(launch([*base, "--check", "--master-port", port])) == (0, "", "")
    assert not output.exists()


def test_a_port_of_another_machine_is_not_checked() -> None:
    # An address for documentation, which no machine has.
    with pytest.raises(UsageError, match=r"^--master-addr 192\.0\.2\.1 is not an address of this machine\.$"):
        listening_port("192.0.2.1", 4242)
    assert listening_port("192.0.2.1", 4242, machines=2) == 4242
    with pytest.raises(UsageError, match=r"^--master-addr no\.invalid can't be found: "):
        listening_port("no.invalid", 4242, machines=2)
    assert 1024 <= listening_port("127.0.0.1", 0) < 65536


def test_check_knows_the_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["--recipe", str(RECIPES / "mlp_mnist14_sgdm.yaml"), "--output", str(tmp_path), "--check"]
    hundred = [*check, "--set", "data.batch_size=100"]
    for ranks, status in (("3", 2), ("4", 0), ("0", 2), ("two", 2)):
        monkeypatch.setenv("MS_WORKER_NUM", ranks)
        assert train.main([*hundred, "--distributed"]) == status
    assert capsys.readouterr().err.splitlines() == [
        "error: data.batch_size 100 can't be divided equally among 3 processes.",
        "error: MS_WORKER_NUM must be an integer of at least 1, got '0'.",
        "error: MS_WORKER_NUM must be an integer of at least 1, got 'two'.",
    ]
    # Of another program, for a run of one process.
    monkeypatch.setenv("MS_WORKER_NUM", "3")
    assert train.main(hundred) == 0


def test_checkpoints_of_other_ranks_are_refused(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"checkpoints/rank_{rank}").mkdir(parents=True)
    for ranks in (1, 3):
        with pytest.raises(CheckpointError, match=f"were written by 2 processes: {ranks} can't resume it"):
            require_ranks(tmp_path, ranks)
    require_ranks(tmp_path, 2)
    # Nothing tells the number of ranks of a run without checkpoints.
    require_ranks(tmp_path / "other", 2)


def test_missing_device_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: str) -> None:
        raise RuntimeError(f"Unsupported device target {device}.\n\n- C++ Call Stack:\n")

    monkeypatch.setattr(ms, "set_device", refuse)
    with pytest.raises(UsageError) as raised:
        set_device("GPU")
    assert str(raised.value) == "MindSpore can't run on --device GPU here: Unsupported device target GPU."


def test_distributed_option_without_msrun_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MS_ROLE", raising=False)
    recipe = ["--recipe", str(RECIPES / "mlp_mnist14_sgdm.yaml"), "--output", str(tmp_path)]
    assert train.main([*recipe, "--distributed"]) == 2
    assert "--distributed needs msrun" in capsys.readouterr().err
    assert train.main([*recipe, "--distributed", "--device", "Ascend"]) == 2
    assert "--distributed needs --device CPU or GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        train.main([*recipe, "--distributed", "--compare", "sgdm"])
    assert "--compare starts single-process runs" in capsys.readouterr().err
