"""`restore` loads all of a checkpoint or nothing: other heads, optimizers and versions, wrapped names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.optim.checkpoint import match_names
from tests.support.loops import State, assert_same_state, checkpoint_of, state_of, train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, SmallNet, batches

OPTIONS = {"damping": 0.1, **fixed_intervals(1, 2)}


def build(seed: int) -> tuple[SmallNet, nn.Optimizer]:
    net = SmallNet(seed)
    return net, ms_kfac.KFAC(net, 0.05, **OPTIONS)


def saved(folder: Path, *cells: nn.Cell) -> dict[str, ms.Parameter]:
    """The checkpoint of a training cell: network and optimizer."""
    ms.save_checkpoint(nn.CellList(list(cells), auto_prefix=False), str(folder / "run.ckpt"))
    found: dict[str, ms.Parameter] = ms.load_checkpoint(str(folder / "run.ckpt"))
    return found


def test_a_new_network_goes_on_exactly(mode: int, tmp_path: Path) -> None:
    """Before the first step, with BatchNorm's moments, which no optimizer trains."""
    data = batches(4)
    net, optimizer = build(0)
    train_by("functional", net, optimizer, data[:2])
    content = saved(tmp_path, net, optimizer)
    train_by("functional", net, optimizer, data[2:])
    resumed, other = build(5)
    other.restore(content)
    train_by("functional", resumed, other, data[2:])
    assert_same_state(state_of(resumed, other), state_of(net, optimizer))


def test_folds_of_one_network(mode: int) -> None:
    """Cross-validation: restored, with steps that are compiled already, or new objects in one process."""
    net, optimizer = build(0)
    start = {p.name: p.copy() for cell in (net, optimizer) for p in cell.get_parameters()}
    ends: list[State] = []
    for _ in range(2):
        optimizer.restore(start)
        train_by("functional", net, optimizer, batches(3))
        ends.append(state_of(net, optimizer))
    assert_same_state(ends[1], ends[0])
    fresh, own = build(0)
    train_by("functional", fresh, own, batches(3))
    assert_same_state(state_of(fresh, own), ends[0])


def dense(classes: int = 3) -> tuple[nn.Cell, nn.Optimizer]:
    net = Perceptron((5, 6, classes))
    return net, ms_kfac.KFAC(net, 0.05, **OPTIONS)


def other_head(content: dict[str, Any]) -> dict[str, Any]:
    return checkpoint_of(*dense(classes=4))


def older_version(content: dict[str, Any]) -> dict[str, Any]:
    """Before statistics were staged: counts instead of weights, records and batches."""
    gone = (".weights", ".record", "_batch", ".past", ".committed", ".calls", ".inverted")
    return {
        name.replace("kfac.global_step", "global_step"): value
        for name, value in content.items()
        if not name.endswith(gone)
    }


def other_layers(content: dict[str, Any]) -> dict[str, Any]:
    net = Perceptron((5, 6, 3))
    return checkpoint_of(net, ms_kfac.KFAC(net, 0.05, skip=["layers.0"], **OPTIONS))


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "head": (other_head, r"layers.1.weight \(4, 6\) instead of \(3, 6\).* Nothing was loaded"),
    "version": (older_version, "got one without .*another version of ms_kfac.* Nothing was loaded"),
    "layers": (other_layers, "must hold all statistics and inverses of KFAC or none, got one without"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(mode: int, name: str) -> None:
    make, message = REFUSED[name]
    net, optimizer = dense()
    content = make({n: ms.Parameter(p + 1, name=n) for n, p in checkpoint_of(net, optimizer).items()})
    before = state_of(net, optimizer)
    with pytest.raises(ValueError, match=message):
        optimizer.restore(content)
    assert_same_state(state_of(net, optimizer), before)


def test_a_checkpoint_of_the_network_loads_the_network() -> None:
    source = Perceptron((5, 6, 3), seed=4)
    net, optimizer = dense()
    optimizer.restore(checkpoint_of(source))
    for found, expected in zip(net.get_parameters(), source.get_parameters()):
        np.testing.assert_array_equal(found.asnumpy(), expected.asnumpy())


def test_a_checkpoint_of_momentum_says_what_is_missing(mode: int) -> None:
    """Weights and momentum come along; the first step then takes statistics and has an inverse."""
    net = SmallNet(3)
    first_order = nn.Momentum(net.trainable_params(), 0.05, 0.9)
    train_by("functional", net, first_order, batches(2))
    content = checkpoint_of(net, first_order)
    resumed, optimizer = build(0)
    with pytest.warns(UserWarning, match="momentum, but no statistics and inverses") as caught:
        optimizer.restore(content)
    assert len(caught) == 1
    np.testing.assert_array_equal(
        optimizer.moments[0].asnumpy(), content[f"moments.{resumed.conv1.weight.name}"].asnumpy()
    )
    train_by("functional", resumed, optimizer, batches(1))
    assert optimizer.refreshes() == {"statistics": 1, "inverses": 1, "refused": 0}


class Wrapped(nn.Cell):
    """A cell of a user around the network, such as one with its loss."""

    def __init__(self, net: nn.Cell) -> None:
        super().__init__()
        self.backbone = net


def wrapped(order: str) -> tuple[nn.Cell, nn.Optimizer]:
    net = Perceptron((5, 6, 3))
    if order == "before":
        Wrapped(net)
    given = nn.WithLossCell(net, nn.MSELoss()) if order == "with its loss" else net
    if order == "around":
        given = Wrapped(net)
    optimizer = ms_kfac.KFAC(given, 0.05, **OPTIONS)
    if order == "after":
        Wrapped(net)
    return net, optimizer


@pytest.mark.parametrize("order", ["before", "after", "around", "with its loss"])
def test_names_that_a_wrapper_changed_are_matched(mode: int, order: str) -> None:
    """Saved without the wrapper and loaded with it, and the other way round."""
    for source, target in (("never", order), (order, "never")):
        net, optimizer = wrapped(source)
        content = checkpoint_of(net, optimizer)
        for value in content.values():
            value.set_data(value + 1)
        own, other = wrapped(target)
        other.restore(content)
        values = [content[p.name].asnumpy() for p in optimizer.get_parameters()]
        assert own is not net
        for parameter, value in zip(other.get_parameters(), values):
            np.testing.assert_array_equal(parameter.asnumpy(), value, err_msg=parameter.name)


def test_names_of_another_network_are_not_matched_in_part() -> None:
    own = ["a.weight", "b.weight", "moments.a.weight"]
    content = ["net.a.weight", "moments.net.a.weight", "other.weight"]
    assert match_names(own, content, ["a.weight", "b.weight"]) == {}
    content += ["net.b.weight"]
    found = match_names(own, content, ["a.weight", "b.weight"])
    assert found == {
        name: name.replace("moments.", "moments.net.") if "moments" in name else f"net.{name}" for name in own
    }


def file_of(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "run.ckpt").write_bytes(content)
        return folder / "run.ckpt"

    return write


def cut(folder: Path) -> Path:
    """A checkpoint whose end is missing."""
    saved(folder, *dense())
    (folder / "run.ckpt").write_bytes((folder / "run.ckpt").read_bytes()[:-7])
    return folder / "run.ckpt"


def another_network(folder: Path) -> dict[str, Any]:
    net = nn.SequentialCell(nn.Dense(5, 3))
    return checkpoint_of(net, nn.Momentum(net.trainable_params(), 0.1, 0.9))


NO_CHECKPOINT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such path": (lambda folder: folder / "none.ckpt", r"got '.*none\.ckpt', which does not exist"),
    "text": (lambda folder: "none.ckpt", r"got 'none\.ckpt', which does not exist"),
    "empty text": (lambda folder: "", "got '', which is no file"),
    "long name": (lambda folder: "n" * 300, "which can't be read: File name too long"),
    "folder": (lambda folder: folder, "which is no file"),
    "no checkpoint": (file_of(b"weights" * 40), "which is no such file or is damaged"),
    "empty file": (file_of(b""), "which is no such file or is damaged"),
    "cut": (cut, "which is no such file or is damaged"),
    "empty mapping": (
        lambda folder: {},
        "names of the network, such as layers.0.weight, .*, got an empty one",
    ),
    "another network": (
        another_network,
        r"names of the network, such as layers.0.weight, .*, got .*0\.weight",
    ),
    "None": (lambda folder: None, "got None"),
    "bytes": (lambda folder: b"run.ckpt", "got b'run.ckpt'"),
    "list": (lambda folder: [1], r"got \[1\]"),
    "numbers": (
        lambda folder: {"layers.0.weight": 1.0},
        "map names to Parameters or Tensors, got 'layers.*: 1.0",
    ),
    "arrays": (
        lambda folder: {"layers.0.weight": np.zeros((6, 5))},
        "map names to Parameters or Tensors, got",
    ),
    "keys": (lambda folder: {1: ms.Tensor(1.0)}, "map names to Parameters or Tensors, got 1: Tensor"),
}


@pytest.mark.parametrize("name", NO_CHECKPOINT)
def test_what_is_no_checkpoint_of_the_network_is_refused(name: str, tmp_path: Path) -> None:
    make, message = NO_CHECKPOINT[name]
    net, optimizer = dense()
    given, before = make(tmp_path), state_of(net, optimizer)
    with pytest.raises(
        (TypeError, ValueError), match=f"^checkpoint must .*{message}[^\n]*Nothing was loaded$"
    ):
        optimizer.restore(given)
    assert_same_state(state_of(net, optimizer), before)


def test_restore_reads_a_file_and_tells_what_it_loaded(tmp_path: Path) -> None:
    net, optimizer = dense()
    for parameter in (*net.get_parameters(), *optimizer.moments):
        parameter.set_data(parameter + 1)
    content = saved(tmp_path, net, optimizer)
    resumed, other = dense()
    told = other.restore(tmp_path / "run.ckpt")
    assert_same_state(state_of(resumed, other), state_of(net, optimizer))
    weights = tuple(p.name for p in net.get_parameters())
    assert set(told.network) == set(weights)
    assert {*told.network, *told.optimizer} == set(content)
    assert (told.kept, told.ignored) == ((), ())
    assert str(told) == f"loaded 4 Parameters of the network and {len(content) - 4} of the optimizer"


def test_a_part_of_the_network_is_told(tmp_path: Path) -> None:
    """Its other weights stay as they are: with a warning, and in what comes back."""
    net, optimizer = dense()
    kept = net.layers[1].weight.asnumpy().copy()
    content = {p.name: ms.Tensor(p + 1) for p in net.get_parameters() if p.name != "layers.1.weight"}
    with pytest.warns(UserWarning, match="lacks 1 of 4 Parameters of the network, .*: layers.1.weight$"):
        told = optimizer.restore({**content, "other.weight": ms.Tensor(1.0)})
    np.testing.assert_array_equal(net.layers[1].weight.asnumpy(), kept)
    np.testing.assert_array_equal(net.layers[0].weight.asnumpy(), content["layers.0.weight"].asnumpy())
    assert told.ignored == ("other.weight",)
    assert "layers.1.weight" in told.kept
    assert re.search(
        r"^loaded 3 Parameters of the network and 0 of the optimizer; kept \d+ \(.* more\); "
        r"ignored 1 \(other\.weight\)$",
        str(told),
    )
