"""Pictures and reports of runs, from folders that are written here by hand."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from model_zoo import plot
from model_zoo.common.curves import curves_figure, read_metrics
from model_zoo.common.report import read_run, report
from tests.model_zoo.synthetic_data import ROOT

VOID = ("meta", "img")


def layer(ratio: float | None, trace: float) -> dict[str, Any]:
    return {
        "verified": "verified" if ratio else "no pass",
        "preconditioned": ratio is not None,
        "bytes": 2048,
        "trace": trace,
        "damping_ratio": ratio,
        "traces": {"A": 2.0, "G": 0.5},
        "eigenvalues": {"A": [-1e-9, 3.0], "G": [1e-4, 2.0]} if ratio else {"G": [None, None]},
    }


def write_run(
    folder: Path, name: str = "kfac", headline: str = "test_accuracy", curvature: bool = True, **more: Any
) -> Path:
    """A run of two epochs of four steps each."""
    folder.mkdir()
    told = {
        "name": name,
        "headline": headline,
        "recipe": {"network": {"name": "mlp"}, "optimizer": {"name": name}, "epochs": 2},
        "versions": {"mindspore": "2.10.0"},
        "machine": {"device": "CPU", "threads": None},
        **more,
    }
    (folder / "run.json").write_text(json.dumps(told))
    lines: list[dict[str, Any]] = []
    for step in range(1, 9):
        where = {"epoch": (step + 3) // 4, "step": step, "seconds": 2.0 * step}
        lines.append({"kind": "step", **where, "running_loss": 1.0 / step})
        if curvature and step % 2 == 0:
            lines.append(
                {
                    "kind": "curvature",
                    **where,
                    "steps": step,
                    "damping": 0.1,
                    "clip_factor": 1.0 if step > 2 else None,
                    "statistics": step,
                    "inverses": step // 2,
                    "refused": 0,
                    "skipped_steps": 0,
                    "bytes": 6144,
                    "layers": {
                        "a": layer(1.0 * step, 4.0),
                        "b": layer(2.0 * step, 2.0),
                        "c": layer(6.0 * step, 1.0),
                        "d<0>": layer(None, 0.0),
                    },
                    "seconds_per_step": None if step == 2 else 0.5,
                }
            )
        if step % 4 == 0:
            told = {"running_loss": 0.5, headline: 0.1 * step, "images_per_second": 10.0}
            lines.append({"kind": "epoch", **where, **told})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_panels_show_the_numbers_of_each_run_in_its_colour(tmp_path: Path) -> None:
    folders = {
        "sgdm": write_run(tmp_path / "sgdm", "sgdm", curvature=False),
        "kfac": write_run(tmp_path / "kfac"),
    }
    runs = {label: read_metrics(folder) for label, folder in folders.items()}
    axes = curves_figure(runs, "test_accuracy", "both").axes
    panels = {axis.get_title(): axis for axis in axes if axis.get_title()}
    # There are no refused batches and skipped steps.
    assert list(panels) == [
        "damping",
        "factor of the KL clip",
        "damping / mean eigenvalue, by layer",
        "trace of the Fisher block, by layer",
        "largest (-) and smallest (--) eigenvalues of factors",
        "statistics taken (-), inverses computed (--)",
        "seconds per step",
    ]
    colour = {line.get_label(): line.get_color() for line in axes[0].lines}["kfac"]
    ratio = panels["damping / mean eigenvalue, by layer"]
    (curve,) = [line for line in ratio.lines if len(line.get_xdata())]
    assert same_color(curve.get_color(), colour)
    np.testing.assert_allclose(curve.get_xdata(), [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(curve.get_ydata(), [4.0, 8.0, 12.0, 16.0])
    (band,) = [band for band in ratio.collections if same_color(band.get_facecolor()[0][:3], colour)]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (2.0, 48.0)
    smallest = [line for line in panels[list(panels)[4]].lines if line.get_linestyle() == "--"][-1]
    np.testing.assert_allclose(smallest.get_ydata(), 1e-4)
    (timed,) = [line for line in panels["seconds per step"].lines if len(line.get_xdata())]
    np.testing.assert_allclose(timed.get_xdata(), [1.0, 1.5, 2.0])

    alone = curves_figure({"sgdm": runs["sgdm"]}, "test_accuracy", "alone")
    assert len(alone.axes) == 4
    np.testing.assert_allclose(alone.axes[2].lines[0].get_ydata(), [0.4, 0.8])


def test_the_command_writes_a_picture_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "first")
    second = write_run(tmp_path / "second", curvature=False)
    picture, page = tmp_path / "both.svg", tmp_path / "both.html"
    arguments = [str(first), str(second), "--output", str(picture), "--html", str(page)]
    assert plot.main(arguments) == 0
    assert "<svg" in picture.read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    # Both runs are called kfac, so that their folders tell them apart.
    assert re.search(rf"{first} +2 +16.0 +10 +0.5000 +0.8000 +0.8000 +2$", printed, re.MULTILINE)
    assert printed.endswith(f"written: {picture}\nwritten: {page}\n")
    assert page.read_text(encoding="utf-8").count("<h2>") == 2


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects cells, texts and what the page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "pre":
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "pre":
            self.texts[-1] += data


def test_a_report_is_one_file_that_tells_everything(tmp_path: Path) -> None:
    name = "<b>k & fac"
    folder = write_run(tmp_path / "run", name, kernels=["CPU (in use): a < b", "check_step  native"])
    text = report({name: read_run(folder)})
    page = Page(text)
    (picture,) = page.loaded
    kind, _, content = picture.partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size[0] > 1000
    assert "http" not in text and "<script" not in text and "<b>" not in text
    recipe, kernels = page.texts
    assert recipe == "network:\n  name: mlp\noptimizer:\n  name: <b>k & fac\nepochs: 2\n"
    assert kernels == "CPU (in use): a < b\ncheck_step  native"
    for row in (
        [name, "2", "16.0", "10", "0.5000", "0.8000", "0.8000", "2"],
        ["test accuracy", "0.8"],
        ["mindspore", "2.10.0"],
        ["threads", "-"],
        ["a", "verified", "2", "4", "8", "A 2, G 0.5", "A -1e-09 to 3, G 0.0001 to 2"],
        ["d<0>", "first-order: no pass", "2", "0", "-", "A 2, G 0.5", "G - to -"],
    ):
        assert row in page.rows


def test_a_report_of_an_earlier_version_says_what_it_lacks(tmp_path: Path) -> None:
    page = Page(report({"old": read_run(write_run(tmp_path / "run", curvature=False))}))
    assert page.texts[1] == "not recorded by the version that trained this run"


def test_what_cannot_be_plotted_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_run(tmp_path / "good")
    other = write_run(tmp_path / "other", "autoencoder", "train_reconstruction_error")
    young = write_run(tmp_path / "young")
    lines = (young / "metrics.jsonl").read_text().splitlines(keepends=True)
    (young / "metrics.jsonl").write_text(lines[0])
    broken = write_run(tmp_path / "broken")
    (broken / "metrics.jsonl").write_text("[]\n")
    undescribed = write_run(tmp_path / "undescribed")
    (undescribed / "run.json").write_text("{")
    nameless = write_run(tmp_path / "nameless")
    (nameless / "run.json").write_text("{}")
    for runs, sentence in (
        ([tmp_path], f"{tmp_path} is not the folder of a run: it has no run.json."),
        ([young], f"{young}: no epoch has ended yet."),
        ([broken], f"{broken / 'metrics.jsonl'} is damaged: TypeError, "),
        ([undescribed], f"{undescribed / 'run.json'} is damaged: JSONDecodeError, "),
        ([nameless], f"{nameless / 'run.json'} is damaged: KeyError, 'name'."),
        ([good, tmp_path / "." / "good"], "each run can be named once."),
        ([good, other], "judged by one metric, got kfac by test_accuracy, autoencoder by train_reconstruct"),
    ):
        output = tmp_path / "none.png"
        assert plot.main([*map(str, runs), "--output", str(output)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
        assert not output.exists()
    for arguments, sentence in (
        ([], "one of --output and --html is required"),
        (["--output", "a.docx"], "--output must end in .png, .svg or .pdf, got a.docx"),
    ):
        with pytest.raises(SystemExit, match="2"):
            plot.main([str(good), *arguments])
        assert sentence in capsys.readouterr().err


def test_plotting_needs_no_mindspore(tmp_path: Path) -> None:
    """The runs may be of another machine."""
    code = (
        "import sys; from model_zoo.plot import main; status = main(sys.argv[1:]);"
        "sys.exit(status if 'mindspore' not in sys.modules else 99)"
    )
    arguments = [str(write_run(tmp_path / "run")), "--html", str(tmp_path / "run.html")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_a_diverged_run_can_be_drawn_and_reported(tmp_path: Path) -> None:
    """Its losses are null in metrics.jsonl, and NaN for what reads them."""
    folder = write_run(tmp_path / "run")
    file = folder / "metrics.jsonl"
    file.write_text(re.sub(r'"running_loss": [\d.]+', '"running_loss": null', file.read_text()))
    metrics = read_metrics(folder)
    assert all(np.isnan(line["running_loss"]) for line in metrics if "running_loss" in line)
    assert any(line["kind"] == "curvature" and line["clip_factor"] is None for line in metrics)
    figure = curves_figure({"run": metrics}, "test_accuracy", "diverged")
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).all()
    assert "nan" in report({"run": read_run(folder)})
