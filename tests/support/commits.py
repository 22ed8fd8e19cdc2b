"""Layers whose staged batches a test writes by hand, and the commit of several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.statistics.layer_statistics import (
    EVERYTHING,
    PASSES,
    PERIOD,
    PRODUCT,
    PRODUCTS,
    SCALE,
    STAGED_WEIGHTS,
)
from ms_kfac.statistics import commit as module
from ms_kfac.statistics.commit import CommitStatistics, RootAverage
from ms_kfac.statistics.statistic import Statistic


def parameter(name: str, value: Any) -> Parameter:
    """A float32 Parameter."""
    return Parameter(Tensor(np.asarray(value, np.float32)), name=name, requires_grad=False)


@dataclass(frozen=True)
class Kept:
    """One statistic of a layer: its shape, its weight, and how it is averaged."""

    shape: tuple[int, ...]
    weight: int = 0
    power: int = 0
    symmetric: bool = False
    averaged: bool = True
    samples: bool = True
    average_shape: tuple[int, ...] | None = None


FACTORS = (Kept((3, 3), 0, 0, symmetric=True), Kept((2, 4, 4), 1, 2, symmetric=True))


class Layer:
    """As much of a curvature block as a commit asks for."""

    def __init__(
        self, name: str, statistics: Sequence[Kept], weights: int, roots: RootAverage | None = None
    ) -> None:
        self.layer_name, self.roots = name, roots
        record = np.zeros(STAGED_WEIGHTS + weights)
        record[PERIOD] = 1
        self.record = parameter(f"{name}.record", record)
        self.weights = parameter(f"{name}.weights", np.zeros(weights))
        self.statistics = tuple(
            Statistic(
                f"s{index}",
                parameter(f"{name}.s{index}_batch", np.zeros(kept.shape)),
                parameter(f"{name}.s{index}_sum", np.zeros(kept.average_shape or kept.shape))
                if kept.averaged
                else None,
                kept.weight,
                EVERYTHING,
                kept.power,
                kept.symmetric,
                kept.samples,
            )
            for index, kept in enumerate(statistics)
        )

    def put(
        self,
        batches: Sequence[Any],
        weights: Sequence[float],
        *,
        passes: int = 1,
        product: float = 0.5,
        products: float = 0.75,
        scale: float = 2.0,
    ) -> None:
        """Writes a staged batch; None leaves an array as it is."""
        for statistic, batch in zip(self.statistics, batches):
            if batch is not None:
                ops.assign(statistic.batch, Tensor(np.asarray(batch, np.float32)))
        record = self.record.asnumpy().copy()
        record[[PASSES, PRODUCT, PRODUCTS, SCALE]] = passes, product, products, scale
        record[STAGED_WEIGHTS:] = weights
        ops.assign(self.record, Tensor(record))

    def averages(self) -> list[np.ndarray]:
        """What is committed."""
        return [statistic.estimated().asnumpy().copy() for statistic in self.statistics]


@dataclass
class Judge:
    """Answers by a script, or commits what is finite; remembers what it was told."""

    answers: Any = None
    told: list[np.ndarray] = field(default_factory=list)

    def __call__(self, told: np.ndarray) -> np.ndarray:
        self.told.append(told.copy())
        if self.answers is not None:
            return np.asarray(self.answers, np.float64)
        columns = [told[:, 8], np.maximum(told[:, 1], 1), np.ones(len(told)), np.zeros(len(told))]
        return np.stack(columns, axis=1)


class Committing(nn.Cell):
    """The commit of some layers, as a step calls it."""

    def __init__(self, layers: Sequence[Layer], decay: float, native: bool, judge: Any = None) -> None:
        super().__init__()
        self.__dict__["judge"] = Judge() if judge is None else judge
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "is_native", lambda name: native)
            self.commit = CommitStatistics(layers, decay, self.judge, name="test")
        assert self.commit.native == native
        self.count = len(layers)

    def construct(self, due: Tensor, scales: Tensor, measured: Tensor) -> bool:
        return self.commit(due, scales, measured)

    def run(self, due: int = 1, unscale: float = 1.0, expected: float = 1.0, measured: Any = None) -> None:
        """One step; returns when everything is written."""
        if measured is None:
            measured = np.zeros((self.count, 3))
        scales = Tensor(np.array([unscale, expected], np.float32))
        self(Tensor(due, ms.int32), scales, Tensor(np.asarray(measured, np.float32)))
        self.commit.outcome.asnumpy()

    @property
    def outcome(self) -> list[float]:
        """Batches refused, then whether each layer has statistics."""
        found: list[float] = self.commit.outcome.asnumpy().tolist()
        return found

    @property
    def past(self) -> np.ndarray:
        """Weights of the past, of all layers' weights."""
        return np.asarray(self.commit.past.asnumpy())


def batches_of(layer: Layer, rng: np.random.Generator) -> list[np.ndarray]:
    """A random array for each statistic, as float32 holds it."""
    return [rng.standard_normal(s.batch.shape).astype(np.float32) for s in layer.statistics]
