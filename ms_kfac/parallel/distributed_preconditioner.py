"""Preconditioned gradients where every rank preconditions those of its own layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.parallel.gathering import Gathering


class DistributedPreconditioner(nn.Cell):
    r"""Owners precondition their layers' gradients, then one collective gives all of them to all ranks.

    Args:
        preconditioners: of every rank, the operator of its layers (as
            :class:`ms_kfac.optim.preconditioner.Preconditioner`); None where it owns no layer.
        owned: of every rank, the indices of those layers.
        rank: this one.
        shapes: of all parameters.
        refreshes: a Parameter that every step writes behind its refresh.

    Attributes:
        gathering: the collective.
        native: of every layer, whether a kernel preconditions its gradients.
        order: of every U the position of its parameter.
        sources: of every parameter the place of its update among those in ``order`` with all gradients
            behind them.

    Inputs:
        - **gradients** (tuple[Tensor]) - one a parameter.

    Outputs:
        - tuple[Tensor], U of every preconditioned parameter, in ``order``.
        - Tensor, float32, :math:`\langle dW_i, U_i \rangle` in ``order``.
    """

    def __init__(
        self,
        preconditioners: Sequence[Any],
        owned: Sequence[Sequence[int]],
        rank: int,
        shapes: Sequence[tuple[int, ...]],
        refreshes: Parameter,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.refreshes = refreshes
        native: dict[int, bool] = {}
        for part, layers in zip(preconditioners, owned):
            if part is not None:
                native.update(zip(layers, part.native))
        self.native = tuple(native[layer] for layer in sorted(native))
        orders = [() if part is None else part.order for part in preconditioners]
        sizes = [int(np.prod(shape)) for shape in shapes]
        used = [sum(sizes[position] for position in order) + len(order) for order in orders]
        self.gathering = Gathering(used, rank)
        self.has_own = len(orders[rank]) > 0
        self.own = preconditioners[rank]
        self.order = tuple(position for order in orders for position in order)
        self.sources = tuple(
            self.order.index(position) if position in self.order else len(self.order) + position
            for position in range(len(shapes))
        )
        begins = []
        products = []
        for owner, order in enumerate(orders):
            begin = self.gathering.begins[owner]
            for position in order:
                begins.append(begin)
                begin += sizes[position]
            if order:
                products.append((begin, len(order)))
        self.begins = tuple(begins)
        self.products = tuple(products)
        self.sizes = tuple(sizes[position] for position in self.order)
        self.shapes = tuple(tuple(shapes[position]) for position in self.order)
        self.concat = ops.Concat()
        self.reshape = ops.Reshape()
        self.slice = ops.Slice()
        self.cast = ops.Cast()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        parts: tuple[Tensor, ...] = ()
        if self.has_own:
            own_updates, own_products = self.own(gradients)
            for update in own_updates:
                parts = (*parts, self.reshape(self.cast(update, ms.float32), (-1,)))
            parts = (*parts, own_products)
        # Waits as inverses would: a rank without layers enters this collective behind the others of the step.
        gathered = self.gathering(parts, (gradients, self.refreshes))
        updates: tuple[Tensor, ...] = ()
        for index in range(len(self.order)):
            part = self.slice(gathered, (self.begins[index],), (self.sizes[index],))
            updates = (*updates, self.reshape(part, self.shapes[index]))
        products: tuple[Tensor, ...] = ()
        for begin, count in self.products:
            products = (*products, self.slice(gathered, (begin,), (count,)))
        return updates, self.concat(products)
