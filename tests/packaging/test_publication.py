"""Files for the hosting site: they parse, agree with the package, and call scripts that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import ms_kfac

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
SCRIPT = re.compile(r"^bash (\S+)(.*)$", re.M)


def read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def steps(workflow: Path) -> list[dict[str, str]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_scripts_with_options_that_these_have(workflow: Path) -> None:
    calls = [call for step in steps(workflow) for call in SCRIPT.findall(step.get("run", ""))]
    assert calls
    for script, arguments in calls:
        text = (ROOT / script).read_text(encoding="utf-8")
        # A bracket of the workflow's language is one word.
        for word in shlex.split(re.sub(r"\$\{\{.*?\}\}", "value", arguments)):
            assert not word.startswith("--") or word in text, (script, word)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read(workflow: Path) -> None:
    assert read(workflow)["permissions"] == {"contents": "read"}
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] == "false"


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_the_kernels(form: Path) -> None:
    assert "ms_kfac.kernels.status()" in form.read_text(encoding="utf-8")
    fields = read(form)["body"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_the_citation_names_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert citation["version"] == ms_kfac.__version__
    assert f"version = {{{citation['version']}}}" in readme
    assert f"title = {{{citation['title']}}}" in readme


def test_hooks_run_what_the_checks_run() -> None:
    checks = (ROOT / ".ci/run").read_text(encoding="utf-8")
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    for hook in hooks:
        tool = hook["entry"].replace(".venv/bin/python -m ", "").replace(".venv/bin/python ", "")
        assert tool.replace(".venv/bin/", "").split()[0] in checks, hook["id"]


def test_the_licence_is_in_the_place_of_every_convention() -> None:
    assert (ROOT / "LICENSES/Apache-2.0.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()
    header = (ROOT / "ms_kfac/kernels/interface/aot_extra.h").read_text(encoding="utf-8")
    assert "Huawei Technologies" in header
    assert "Apache-2.0" in header


@pytest.mark.parametrize("script", sorted({*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci/run"}))
def test_scripts_have_no_syntax_error(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
