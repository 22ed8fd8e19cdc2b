"""Parts divide the time, a failed part does not stop the others, and one file has all results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import parts as parts_module
from benchmarks.gpu.parts import PARTS, ROOT, Interpreters, Part, allotted, command_of, run_part
from benchmarks.gpu.run_all import run_all

SCRIPT = ROOT / "benchmarks" / "gpu" / "run_all.sh"
# Stands in for `python -m benchmarks.gpu.MODULE --record FILE ...`.
PROGRAM = """
import json, os, subprocess, sys, time
module, record = sys.argv[2].rsplit(".", 1)[1], sys.argv[4]
def add(**line):
    with open(record, "a") as file:
        file.write(json.dumps(line) + "\\n")
add(what="ran", arguments=sys.argv[5:], native=os.environ.get("MS_KFAC_NATIVE"))
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


def test_all_parts_have_time_within_ten_minutes() -> None:
    assert sum(part.least for part in PARTS) <= 10 * 60 - 5
    assert all(part.least <= part.most for part in PARTS)
    assert len({part.name for part in PARTS}) == len(PARTS)
    folder = ROOT / "benchmarks" / "gpu"
    assert all((folder / f"{part.module}.py").exists() for part in PARTS)


def test_a_part_that_breaks_or_hangs_does_not_stop_the_others(interpreter: str, tmp_path: Path) -> None:
    parts = [
        Part("breaks", "breaks", 1, 20),
        Part("hangs", "hangs", 1, 3),
        Part("fails inside", "records_a_failure", 1, 20),
        Part("works", "works", 1, 20, ("--network", "n"), environment={"MS_KFAC_NATIVE": "0"}),
    ]
    output = tmp_path / "results" / "all.json"
    start = time.monotonic()
    run_all(output, seconds=60, interpreters=Interpreters(interpreter), parts=parts)
    # The hanging part had 3 s; the others end at once.
    assert time.monotonic() - start < 40
    report = json.loads(output.read_text())
    found = report["parts"]
    assert list(found) == [part.name for part in parts]
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
    assert [list(report["parts"]) for report in seen] == [["first"]]
    assert seen[0]["finished"] is False


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
    part = Part("works", "works", 1, 20, mindspore=True)
    result = run_part(part, interpreters, tmp_path, 10, False)
    assert result["status"] == "done", result
    assert result["records"][0]["native"] == "from the file"
    own = command_of(Part("torch", "works", 1, 20), interpreters, tmp_path / "r", 10, False)
    assert own[0] == interpreters.python


def test_part_gets_notice_before_its_limit(tmp_path: Path) -> None:
    command = command_of(Part("works", "works", 1, 20), Interpreters("python"), tmp_path / "r", 30, False)
    asked = float(command[command.index("--seconds") + 1])
    assert asked == 30 - parts_module.NOTICE_SECONDS


def test_script_without_a_gpu_prints_one_line_and_exits_with_2(tmp_path: Path) -> None:
    # Neither nvidia-smi on this PATH nor torch of this interpreter finds a GPU.
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "dirname").symlink_to("/usr/bin/dirname")
    output = tmp_path / "all.json"
    done = subprocess.run(
        ["/bin/bash", str(SCRIPT), "--output", str(output)],
        env={"PATH": str(empty), "PYTHON": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "no GPU: neither nvidia-smi nor torch of /bin/false finds one\n"
    assert not output.exists()
