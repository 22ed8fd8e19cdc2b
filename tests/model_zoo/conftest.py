"""Fixtures of the zoo's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import pytest

from model_zoo.common.data import digits
from model_zoo.common.data.splits import DataSet, Split
from tests.model_zoo.synthetic_data import write_cifar10, write_image_folder, write_mnist, write_sources


@pytest.fixture(autouse=True)
def _mindspore_as_it_was() -> Iterator[None]:
    """Restores the execution mode, which a training run sets for the whole process."""
    mode = ms.get_context("mode")
    yield
    ms.set_context(mode=mode)


@pytest.fixture
def cifar10_folder(tmp_path: Path) -> Path:
    return write_cifar10(tmp_path / "cifar")


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "idx")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "images")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return write_sources(tmp_path / "lib")


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """Twenty of the digits to train on and ten to test on."""
    data = digits.load()
    train = Split(data.train.images[:20], data.train.labels[:20])
    test = Split(data.test.images[:10], data.test.labels[:10])
    few = DataSet("digits", train, test, data.mean, data.deviation)
    monkeypatch.setattr(digits, "load", lambda: few)
    return few
