"""The lock of a run's folder: one live owner, stale locks taken over, other machines told apart."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from model_zoo.common.errors import UsageError
from model_zoo.common.run_lock import LOCK_FILE, Owner, locked, refuse_if_locked
from tests.model_zoo.synthetic_data import ROOT

WAIT = (
    "import sys; from pathlib import Path; from model_zoo.common.run_lock import locked\n"
    "with locked(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
)
# Tells whether it was refused, and leaves the lock as after SIGKILL.
RACE = (
    "import os, sys; from pathlib import Path; from model_zoo.common.run_lock import locked\n"
    "from model_zoo.common.errors import UsageError\n"
    "sys.stdin.readline()\n"
    "try:\n"
    "    lock = locked(Path(sys.argv[1])); lock.__enter__(); print('won', flush=True)\n"
    "except UsageError: print('refused', flush=True)\n"
    "sys.stdin.readline(); os._exit(0)"
)


def process(code: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True)


def leave(folder: Path, owner: Owner | str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / LOCK_FILE).write_text(owner if isinstance(owner, str) else json.dumps(asdict(owner)))


def test_a_lock_is_held_and_released(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / "a"
    refuse_if_locked(folder)
    with locked(folder):
        owner = json.loads((folder / LOCK_FILE).read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
        sentence = (
            rf"^{re.escape(str(folder))} is in use by process {os.getpid()}: .*choose another folder\.$"
        )
        with pytest.raises(UsageError, match=sentence):
            refuse_if_locked(folder)
        with pytest.raises(UsageError, match=sentence), locked(folder):
            pass
        (folder / "run.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert capsys.readouterr().out == ""


def test_a_refused_command_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "runs" / "a"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_live_process_is_refused_and_a_killed_one_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = process(WAIT, tmp_path)
    assert other.stdout is not None and other.stdout.readline() == "locked\n"
    with pytest.raises(UsageError, match=f"is in use by process {other.pid}:"), locked(tmp_path):
        pass
    # Not waited for: a zombie does not hold the lock.
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    refuse_if_locked(tmp_path)
    with locked(tmp_path):
        told = f"{tmp_path} was locked by process {other.pid}, which has ended: the lock is taken over\n"
        assert capsys.readouterr().out == told
    other.communicate()


@pytest.mark.parametrize("started", ["", "another-boot 5", "recycled"])
def test_a_recycled_process_id_is_told_apart(
    started: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Owner.this_process()
    if started == "recycled":
        boot, ticks = own.started.split()
        started = f"{boot} {int(ticks) - 1}"
    leave(tmp_path, replace(own, started=started))
    with locked(tmp_path):
        assert f"was locked by process {own.pid}, which has ended" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "[]", '{"pid": 3}', "\0\0\0", "null"])
def test_a_cut_lock_is_taken_over(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path, content)
    refuse_if_locked(tmp_path)
    with locked(tmp_path):
        assert "was locked by an unknown process, which has ended" in capsys.readouterr().out


def test_another_machine_is_refused_with_the_way_out(tmp_path: Path) -> None:
    leave(tmp_path, Owner(7, "elsewhere", "boot 5"))
    sentence = rf"in use by process 7 on elsewhere: if that process has ended, remove .*{LOCK_FILE}\.$"
    with pytest.raises(UsageError, match=sentence), locked(tmp_path):
        pass
    with pytest.raises(UsageError, match=sentence):
        refuse_if_locked(tmp_path)
    (tmp_path / LOCK_FILE).unlink()
    with locked(tmp_path):
        pass


def test_a_lock_that_was_given_away_is_not_removed(tmp_path: Path) -> None:
    other = Owner(7, "elsewhere", "boot 5")
    with locked(tmp_path):
        (tmp_path / LOCK_FILE).unlink()
        leave(tmp_path, other)
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == asdict(other)


@pytest.mark.parametrize("content", [b"\xff", b"[" * 4096, b"{"])
def test_a_damaged_lock_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    refuse_if_locked(tmp_path)
    with locked(tmp_path):
        assert b"pid" in (tmp_path / LOCK_FILE).read_bytes()
    assert not (tmp_path / LOCK_FILE).exists()


def test_two_processes_do_not_decide_at_the_same_time(tmp_path: Path) -> None:
    leave(tmp_path, "{")
    with (tmp_path / LOCK_FILE).open() as deciding:
        fcntl.flock(deciding, fcntl.LOCK_EX)
        other = process(WAIT, tmp_path)
        assert other.stdout is not None
        # Long enough for a process that imports nothing large.
        readable, _, _ = select.select([other.stdout], [], [], 1.5)
        assert not readable and (tmp_path / LOCK_FILE).read_text() == "{"
    assert other.stdout.readline().endswith("the lock is taken over\n")
    assert other.stdout.readline() == "locked\n"
    other.communicate()


def test_one_of_several_wins_a_stale_lock(tmp_path: Path) -> None:
    leave(tmp_path, Owner(2**22 + 1, socket.gethostname(), "boot 5"))
    rivals = [process(RACE, tmp_path) for _ in range(4)]
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    told = []
    for rival in rivals:
        assert rival.stdout is not None
        lines = iter(rival.stdout.readline, "")
        told.append(next(line for line in lines if line in ("won\n", "refused\n")))
    for rival in rivals:
        rival.communicate("end\n")
    assert sorted(told) == ["refused\n"] * 3 + ["won\n"]
