"""The progress bar: its lines, its bar, and how seldom it looks at the loss."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import mindspore.dataset as ds
import mindspore.nn as nn
import numpy as np
import pytest
from mindspore.train import Model

from ms_kfac.train import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Loss:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 0.5


def run(
    bar: ProgressBar,
    loss: Any,
    epochs: int = 2,
    steps: int = 25,
    batch: int = 4,
    sunk: int = 1,
    announced: int | None = None,
) -> None:
    """The calls that Model.train makes, one for every `sunk` steps."""
    parameters = SimpleNamespace(
        epoch_num=epochs,
        batch_num=steps if announced is None else announced,
        cur_step_num=0,
        cur_epoch_num=0,
        net_outputs=loss,
        train_dataset=SimpleNamespace(get_batch_size=lambda: batch),
    )
    context = SimpleNamespace(original_args=lambda: parameters)
    bar.on_train_begin(context)
    for epoch in range(1, epochs + 1):
        parameters.cur_epoch_num = epoch
        bar.on_train_epoch_begin(context)
        for _ in range(steps // sunk):
            parameters.cur_step_num += sunk
            bar.on_train_step_end(context)
        bar.on_train_epoch_end(context)
    bar.on_train_end(context)


def test_a_line_an_epoch_and_no_bar_where_there_is_no_terminal() -> None:
    stream, lines = io.StringIO(), io.StringIO()
    run(ProgressBar(stream=stream, lines=lines), 0.25)
    assert stream.getvalue() == ""
    first, second = lines.getvalue().splitlines()
    assert re.fullmatch(r"epoch 1/2  loss 0\.25  \d+ images/s  \d+\.\d s  \d+:\d\d left", first)
    assert second.startswith("epoch 2/2")
    assert second.endswith("0:00 left")


def test_a_bar_on_a_terminal_shows_loss_figures_speed_and_time_left() -> None:
    stream, lines = Terminal(), io.StringIO()
    run(ProgressBar(figures=lambda: {"test accuracy": 0.97}, stream=stream, lines=lines), 0.25, steps=3000)
    drawn = stream.getvalue()
    assert "epoch 1/2" in drawn
    assert "loss 0.25, test accuracy 0.97" in drawn
    assert re.search(r"\d images/s", drawn)
    assert re.search(r"\d\d:\d\d<\d\d:\d\d", drawn)
    assert "loss 0.25  test accuracy 0.97" in lines.getvalue()


@pytest.mark.parametrize(("bar", "drawn"), [(False, False), (True, True)])
def test_the_bar_can_be_forced(bar: bool, drawn: bool) -> None:
    stream = Terminal() if not bar else io.StringIO()
    run(ProgressBar(bar=bar, stream=stream, lines=io.StringIO()), 0.25)
    assert bool(stream.getvalue()) == drawn


@pytest.mark.parametrize(("every", "reads"), [(10, 2 * 3), (25, 2), (1, 50)])
def test_the_loss_is_read_every_few_steps_and_at_the_end_of_an_epoch(every: int, reads: int) -> None:
    loss = Loss()
    run(ProgressBar(every=every, stream=io.StringIO(), lines=io.StringIO()), loss)
    assert loss.reads == reads


@pytest.mark.parametrize(("sunk", "reads"), [(5, 2 * 3), (25, 2)])
def test_a_call_may_stand_for_many_steps(sunk: int, reads: int) -> None:
    bar, loss = ProgressBar(bar=True, stream=io.StringIO(), lines=io.StringIO()), Loss()
    run(bar, loss, sunk=sunk)
    assert bar._bar.n == 2 * 25 * 4
    assert loss.reads == reads


def test_more_steps_than_expected_leave_no_time() -> None:
    """MindSpore announces sink_size steps per epoch; on a CPU, an epoch has those of the data set."""
    lines = io.StringIO()
    run(ProgressBar(stream=io.StringIO(), lines=lines), 0.25, steps=25, announced=10)
    assert [line.rpartition("  ")[2] for line in lines.getvalue().splitlines()] == ["0:00 left"] * 2


def test_the_loss_is_the_first_output_of_a_scaled_step() -> None:
    lines = io.StringIO()
    run(ProgressBar(stream=io.StringIO(), lines=lines), (0.125, True, 1024.0))
    assert "loss 0.125 " in lines.getvalue()


def test_every_is_checked() -> None:
    with pytest.raises(ValueError, match="every must be an int of at least 1, got 0"):
        ProgressBar(every=0)


def test_it_is_a_callback_of_model_train(mode: int, rng: np.random.Generator) -> None:
    rows = (rng.standard_normal((12, 3)).astype(np.float32), np.arange(12, dtype=np.int32) % 2)
    dataset = ds.NumpySlicesDataset(rows, ["x", "y"], shuffle=False).batch(4)
    network = nn.Dense(3, 2)
    optimizer = nn.Momentum(network.trainable_params(), 0.1, 0.9)
    lines = io.StringIO()
    model = Model(network, nn.CrossEntropyLoss(), optimizer)
    model.train(
        2, dataset, callbacks=[ProgressBar(stream=io.StringIO(), lines=lines)], dataset_sink_mode=False
    )
    losses = re.findall(r"loss (\S+)", lines.getvalue())
    assert len(losses) == 2
    assert all(0 < float(loss) < 5 for loss in losses)
