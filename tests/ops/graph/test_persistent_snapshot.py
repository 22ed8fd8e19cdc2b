"""Copies of Parameters that outlive a step."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ms_kfac.ops.graph.persistent_snapshot import PersistentSnapshot


class Overwrite(nn.Cell):
    """Stores, overwrites and maybe puts back, each in a call of its own."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.matrix = ms.Parameter(ms.Tensor([[1.0, -2.0]], ms.float32), name="matrix")
        self.count = ms.Parameter(ms.Tensor(3, ms.int32), name="count")
        self.kept = PersistentSnapshot([self.matrix, self.count], "stored")

    def construct(self, what: ms.Tensor) -> ms.Tensor:
        done = what
        if what == 0:
            done = ops.depend(done, self.kept.store(what))
            self.matrix = ops.depend(self.matrix, done) * np.inf
            ops.assign(self.count, 7)
        else:
            done = ops.depend(done, self.kept.put_back(what))
        return done


def test_values_come_back_in_a_later_call(mode: int) -> None:
    cell = Overwrite()
    assert [p.name for p in cell.kept.copies] == ["stored.matrix", "stored.count"]
    for _ in range(2):
        cell(ms.Tensor(0))
        assert np.isinf(cell.matrix.asnumpy()).all()
        assert int(cell.count.asnumpy()) == 7
        cell(ms.Tensor(1))
        np.testing.assert_array_equal(cell.matrix.asnumpy(), [[1.0, -2.0]])
        assert int(cell.count.asnumpy()) == 3
