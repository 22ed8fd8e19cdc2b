"""Distributed preconditioning: each rank preconditions the gradients of the layers it owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.parallel.collectives import Gathering


class DistributedPreconditioner(nn.Cell):
    r"""Preconditions gradients on their owners and gathers the results on all ranks, in one collective.

    Args:
        preconditioners: per rank, the operator for the layers it owns (such as
            :class:`ms_kfac.optim.preconditioner.Preconditioner`); None if it owns no layer.
        owned: per rank, the indices of the layers it owns.
        rank: this rank.
        shapes: shapes of all parameters.
        refreshes: a Parameter that every step writes after its refresh.

    Attributes:
        gathering: the collective.
        native: per layer, whether a native kernel preconditions its gradients.
        order: per U, the index of its parameter.
        sources: index of each parameter's update in ``(*preconditioned, *gradients)``, with the
            preconditioned gradients in ``order``.

    Inputs:
        - **gradients** (tuple[Tensor]) - one gradient per parameter.

    Outputs:
        - tuple[Tensor], U of each preconditioned parameter, in ``order``.
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
        # Without this token, a rank that owns no layer could enter this collective before earlier ones.
        gathered = self.gathering(parts, (gradients, self.refreshes))
        updates: tuple[Tensor, ...] = ()
        for index in range(len(self.order)):
            part = self.slice(gathered, (self.begins[index],), (self.sizes[index],))
            updates = (*updates, self.reshape(part, self.shapes[index]))
        products: tuple[Tensor, ...] = ()
        for begin, count in self.products:
            products = (*products, self.slice(gathered, (begin,), (count,)))
        return updates, self.concat(products)
