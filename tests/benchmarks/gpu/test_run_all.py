"""Parts divide the time, a failed part does not stop the others, and one file has all results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import parts as parts_module
from benchmarks.gpu import run_all as run_all_module
from benchmarks.gpu.parts import MACHINE, PARTS, Interpreters, Part, allotted, command_of, run_part
from benchmarks.gpu.run_all import (
    FAILED,
    FINE,
    NOTHING_RAN,
    RESERVED_SECONDS,
    USAGE,
    choose_parts,
    exit_status,
    run_all,
)
from benchmarks.gpu.sources import ROOT, fingerprint

SCRIPT = ROOT / "benchmarks" / "gpu" / "run_all.sh"
# Stands in for `python -m benchmarks.gpu.MODULE --record FILE ...`.
PROGRAM = """
import json, os, subprocess, sys, time
module, record = sys.argv[2].rsplit(".", 1)[1], sys.argv[4]
def add(**line):
    with open(record, "a") as file:
        file.write(json.dumps(line) + "\\n")
add(what="ran", arguments=sys.argv[5:], native=os.environ.get("MS_KFAC_NATIVE"))
if module == "machine":
    add(what="missing", of="a compiler", reason="there is no compiler")
if module == "breaks":
    sys.exit("it broke")
if module == "records_a_failure":
    add(what="failure", of="one layer", message="out of memory")
if module == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    add(what="child", pid=child.pid)
    time.sleep(600)
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    script = tmp_path / "interpreter"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_part_gets_the_time_not_reserved_for_later_parts() -> None:
    parts = [Part("a", "a", 10, 100), Part("b", "b", 20, 50), Part("c", "c", 30, 60)]
    assert allotted(parts, 0, 200) == 100
    assert allotted(parts, 0, 90) == 40
    # If the run is late, the earlier parts still get their reserve.
    assert allotted(parts, 1, 25) == 20
    assert allotted(parts, 2, 29) == 0


@pytest.mark.parametrize("folder", [None, Path("mindspore")])
def test_all_parts_have_time_within_nine_minutes(folder: Path | None) -> None:
    parts = [MACHINE, *choose_parts(None, folder)]
    assert sum(part.least for part in parts) <= 9 * 60 - RESERVED_SECONDS
    assert all(part.least <= part.most for part in parts)
    assert len({part.name for part in parts}) == len(parts)
    modules = ROOT / "benchmarks" / "gpu"
    assert all((modules / f"{part.module}.py").exists() for part in parts)


def test_errors_come_before_times_and_mindspore_last() -> None:
    names = [part.name for part in PARTS]
    assert names[:4] == ["build", "tests", "errors", "memory errors"]
    with_mindspore = [part.mindspore for part in PARTS]
    assert with_mindspore == sorted(with_mindspore)


def test_a_folder_with_mindspore_runs_the_parts_with_mindspore(tmp_path: Path) -> None:
    parts = choose_parts(None, tmp_path)
    assert [part.name for part in parts[:3]] == ["build", "set-up of MindSpore", "training, resnet20, native"]
    assert parts[1].arguments == ("--folder", str(tmp_path))
    assert all(part.mindspore for part in parts[2:])
    # What prepares the chosen part stays.
    names = [part.name for part in choose_parts(["sink"], tmp_path)]
    assert names == ["build", "set-up of MindSpore", "sink"]


def test_a_part_that_breaks_or_hangs_does_not_stop_the_others(interpreter: str, tmp_path: Path) -> None:
    parts = [
        Part("breaks", "breaks", 1, 20),
        Part("hangs", "hangs", 1, 3),
        Part("fails inside", "records_a_failure", 1, 20),
        Part("works", "works", 1, 20, (), ("--network", "n"), environment={"MS_KFAC_NATIVE": "0"}),
    ]
    output = tmp_path / "all.json"
    start = time.monotonic()
    run_all(output, seconds=60, interpreters=Interpreters(interpreter), parts=parts)
    # The hanging part had 3 s; the others end at once.
    assert time.monotonic() - start < 40
    report = json.loads(output.read_text())
    found = report["parts"]
    assert list(found) == ["machine", *(part.name for part in parts)]
    assert found["breaks"]["status"] == "failed"
    assert found["breaks"]["last_lines"] == ["it broke"]
    assert found["hangs"]["status"] == "out of time"
    assert [line["what"] for line in found["hangs"]["records"]] == ["ran", "child"]
    assert not alive(found["hangs"]["records"][1]["pid"])
    assert found["fails inside"]["status"] == "failed"
    assert found["fails inside"]["failures"] == 1
    assert found["works"]["status"] == "done"
    assert found["works"]["records"][0]["native"] == "0"
    assert found["works"]["records"][0]["arguments"][2:] == ["--network", "n"]
    assert report["finished"] is True
    assert report["dry_run"] is False
    assert "note" not in report
    assert exit_status(report, parts) == FAILED


def test_a_part_that_cannot_run_leaves_its_time_and_the_exit_status(
    interpreter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [
        Part("first", "works", 1, 20),
        Part("needs one", "works", 15, 15, ("a compiler",)),
        Part("needs another", "works", 15, 15, ("a card",)),
    ]
    missing = {"a card": "there is no card"}
    report = run_all(
        tmp_path / "all.json",
        seconds=20,
        interpreters=Interpreters(interpreter),
        parts=parts,
        missing=missing,
    )
    found = report["parts"]
    # The others would leave it nothing of the 20 s but what it reserves.
    assert found["first"]["status"] == "done"
    assert found["first"]["allotted_seconds"] > 10
    assert found["needs one"] == {"status": "cannot run", "message": "there is no compiler", "records": []}
    assert found["needs another"]["message"] == "there is no card"
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "needs one: cannot run, there is no compiler",
        "needs another: cannot run, there is no card",
    ]
    assert exit_status(report, parts) == FINE
    assert exit_status(report, parts[1:]) == NOTHING_RAN


def test_parts_that_need_the_kernels_cannot_run_without_a_build(interpreter: str, tmp_path: Path) -> None:
    parts = [
        Part("build", "breaks", 1, 20, prepares=True),
        Part("needs them", "works", 1, 20, ("kernels",)),
        Part("works", "works", 1, 20),
    ]
    report = run_all(tmp_path / "all.json", seconds=60, interpreters=Interpreters(interpreter), parts=parts)
    assert report["parts"]["needs them"]["message"] == "the part build did not succeed"
    assert report["parts"]["works"]["status"] == "done"
    assert exit_status(report, parts) == FAILED


def test_a_build_with_a_failure_to_report_has_its_kernels(interpreter: str, tmp_path: Path) -> None:
    parts = [
        Part("build", "records_a_failure", 1, 20, prepares=True),
        Part("needs them", "works", 1, 20, ("kernels",)),
    ]
    report = run_all(tmp_path / "all.json", seconds=60, interpreters=Interpreters(interpreter), parts=parts)
    assert report["parts"]["needs them"]["status"] == "done"
    assert exit_status(report, parts) == FAILED


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("done", "done", "done"), FINE),
        (("done", "cannot run", "done"), FINE),
        (("done", "done", "cannot run"), NOTHING_RAN),
        (("done", "done", "failed"), FAILED),
        (("done", "failed", "cannot run"), FAILED),
        (("done", "done", "out of time"), FAILED),
        (("done", "done", "not run"), FAILED),
        (("failed", "done", "done"), FAILED),
    ],
)
def test_exit_status(statuses: tuple[str, ...], expected: int) -> None:
    parts = [Part("build", "build", 1, 1, prepares=True), Part("tests", "tests", 1, 1)]
    names = ("machine", "build", "tests")
    report = {"parts": {name: {"status": status} for name, status in zip(names, statuses)}}
    assert exit_status(report, parts) == expected


def test_a_preparation_that_is_asked_for_alone_is_enough() -> None:
    parts = [Part("build", "build", 1, 1, prepares=True)]
    assert exit_status({"parts": {"machine": {"status": "done"}, "build": {"status": "done"}}}, parts) == FINE


def test_sources_that_cannot_be_written_are_copied(
    interpreter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A superuser may write everywhere except in read-only file systems.
    monkeypatch.setattr(run_all_module.os, "access", lambda path, mode: False)
    used: list[Path] = []

    def spy(*arguments: object) -> dict:
        used.append(arguments[5])
        used_fingerprints.append(fingerprint(arguments[5]))
        return run_part(*arguments)

    used_fingerprints: list[str] = []
    monkeypatch.setattr(run_all_module, "run_part", spy)
    part = Part("works", "works", 1, 20)
    report = run_all(tmp_path / "all.json", seconds=30, interpreters=Interpreters(interpreter), parts=[part])
    assert ROOT not in used
    assert set(used_fingerprints) == {report["sources"]}


def test_a_part_without_time_is_not_run_and_said_so(interpreter: str, tmp_path: Path) -> None:
    parts = [Part("works", "works", 1, 5), Part("no time", "works", 100, 100)]
    report = run_all(tmp_path / "all.json", seconds=20, interpreters=Interpreters(interpreter), parts=parts)
    assert report["parts"]["works"]["status"] == "done"
    assert report["parts"]["no time"]["status"] == "not run"


def test_dry_run_is_passed_to_every_part_and_recorded(interpreter: str, tmp_path: Path) -> None:
    output = tmp_path / "all.json"
    part = Part("works", "works", 1, 20)
    run_all(output, seconds=30, interpreters=Interpreters(interpreter), parts=[part], dry_run=True)
    report = json.loads(output.read_text())
    assert report["dry_run"] is True
    assert "measures nothing" in report["note"]
    assert report["parts"]["works"]["records"][0]["arguments"][-1] == "--dry-run"


def test_the_file_is_whole_after_every_part(
    interpreter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "all.json"
    parts = [Part("first", "works", 1, 20), Part("second", "works", 1, 20)]
    seen: list[dict] = []

    def spy(part: Part, *arguments: object) -> dict:
        if output.exists():
            seen.append(json.loads(output.read_text()))
        return run_part(part, *arguments)

    monkeypatch.setattr("benchmarks.gpu.run_all.run_part", spy)
    run_all(output, seconds=30, interpreters=Interpreters(interpreter), parts=parts)
    names = ["machine", "first", "second"]
    assert [list(report["parts"]) for report in seen] == [names[:count] for count in range(3)]
    assert not any(report["finished"] for report in seen)


def test_missing_interpreter_is_a_failure(tmp_path: Path) -> None:
    part = Part("works", "works", 1, 20)
    result = run_part(part, Interpreters(str(tmp_path / "nothing")), tmp_path, 10, False)
    assert result["status"] == "failed"
    assert "nothing" in result["message"]


def test_mindspore_parts_use_their_own_interpreter_and_environment(interpreter: str, tmp_path: Path) -> None:
    environment = tmp_path / "set-up.sh"
    # A sourced file may behave differently if it sees arguments.
    environment.write_text('[ $# -eq 0 ] || exit 9\nexport MS_KFAC_NATIVE="from the file"\n')
    interpreters = Interpreters(str(tmp_path / "nothing"), interpreter, str(environment))
    part = Part("works", "works", 1, 20, ("mindspore",))
    result = run_part(part, interpreters, tmp_path, 10, False)
    assert result["status"] == "done", result
    assert result["records"][0]["native"] == "from the file"
    own = command_of(Part("torch", "works", 1, 20), interpreters, tmp_path / "r", 10, False)
    assert own[0] == interpreters.python


def test_part_gets_notice_before_its_limit(tmp_path: Path) -> None:
    command = command_of(Part("works", "works", 1, 20), Interpreters("python"), tmp_path / "r", 30, False)
    asked = float(command[command.index("--seconds") + 1])
    assert asked == 30 - parts_module.NOTICE_SECONDS


def run_script(folder: Path, *arguments: str, python: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with a PATH that has neither git nor nvidia-smi nor nvcc."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "readlink", "env", "python3"):
        (tools / name).symlink_to(shutil.which(name) or name)
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *arguments],
        env={"PATH": str(tools), "PYTHON": python},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_without_a_gpu_says_so_for_each_part_and_that_nothing_ran(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--output", "results/all.json", python=sys.executable)
    assert done.returncode == NOTHING_RAN, done.stdout + done.stderr
    report = json.loads((tmp_path / "results" / "all.json").read_text())
    assert report["commit"] == ""
    assert report["sources"] == fingerprint()
    lines = done.stdout.splitlines()
    assert lines[0].startswith("machine: done")
    assert [line.split(":")[0] for line in lines[1:-1]] == [part.name for part in PARTS]
    assert all(": cannot run, " in line for line in lines[1:-1])
    assert "build: cannot run, no GPU was found" in lines
    assert done.stderr == "nothing ran: no part that checks or measures could run here\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--minutes", "0"), "--minutes must be more than 0.1, got 0.0"),
        (("--only", "rest"), "invalid choice: 'rest'"),
        (("--output", "/proc/all.json"), "--output must be a file that can be written, got /proc/all.json"),
        (("--mindspore", "tools"), "tools has no setup.sh"),
    ],
)
def test_script_refuses_wrong_arguments(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run_script(tmp_path, *arguments, python=sys.executable)
    assert done.returncode == USAGE
    assert message in done.stderr


def test_script_refuses_parts_that_a_folder_with_mindspore_leaves_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(run_all_module.set_up_mindspore, "why_not", lambda folder: "")
    monkeypatch.setattr(sys, "argv", ["run_all", "--mindspore", str(tmp_path), "--only", "tests"])
    with pytest.raises(SystemExit) as ended:
        run_all_module.main()
    assert ended.value.code == USAGE
    assert "--only: with --mindspore, must be of build, " in capsys.readouterr().err


def test_script_refuses_a_python_that_is_none(tmp_path: Path) -> None:
    done = run_script(tmp_path, python="no-python")
    assert (done.returncode, done.stderr) == (USAGE, "error: PYTHON=no-python is not a program\n")
