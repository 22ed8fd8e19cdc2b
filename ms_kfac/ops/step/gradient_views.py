"""Gradients as layers see them: in float32, and only the rows that a layer has as its weight or bias."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.step.parameter_rows import LayerParameter, ParameterRows, parameter_of

# Index of a gradient, then begin and size of the slice of it; () for all of it.
Piece = tuple[int, tuple[int, ...], tuple[int, ...]]


class GradientViews(nn.Cell):
    """Gradients in float32, followed by views of the gradients that layers use in part.

    Most networks have float32 weights and no views, and then the operator is unused.

    Args:
        parameters: the optimizer's Parameters.
        layers: for each layer, its weight and, if it has one, its bias: Parameters or rows of Parameters.

    Attributes:
        changes: whether the output differs from the input.
        positions: for each layer, the indices of its gradients in the output.
        owners: index of the Parameter of each element of the output.
        shapes: shape of each element of the output.

    Inputs:
        - **gradients** (tuple[Tensor]) - one per Parameter.

    Outputs:
        tuple[Tensor], ``(*gradients, *views)``, float32.

    Platforms: CPU, GPU, Ascend (composed of Slice, Cast and Concat).
    """

    def __init__(self, parameters: Sequence[Parameter], layers: Sequence[Sequence[LayerParameter]]) -> None:
        super().__init__(auto_prefix=False)
        self.count = len(parameters)
        index = {id(parameter): position for position, parameter in enumerate(parameters)}
        shapes = [tuple(int(size) for size in parameter.shape) for parameter in parameters]
        views: list[Piece] = []
        positions: list[tuple[int, ...]] = []
        for own in layers:
            found = []
            for weight in own:
                position = index[id(parameter_of(weight))]
                if isinstance(weight, ParameterRows):
                    views.append((position, *_slice(weight.begin, weight.shape)))
                    position = self.count + len(views) - 1
                found.append(position)
            positions.append(tuple(found))
        self.views, self.positions = tuple(views), tuple(positions)
        self.owners = (*range(self.count), *(view[0] for view in views))
        self.shapes = (*shapes, *(view[2] for view in views))
        # A native kernel takes the type of a tuple's first element for the type of all.
        self.casts = any(parameter.dtype != ms.float32 for parameter in parameters)
        self.changes = self.casts or len(views) > 0
        self.types = tuple(parameter.dtype for parameter in parameters)
        self.joins = tuple(self._pieces_of(position) for position in range(self.count))
        self.update_of: tuple[int, ...] = ()
        self.cast = ops.Cast()
        self.slice = ops.Slice()
        self.concat = ops.Concat()

    def _pieces_of(self, position: int) -> tuple[Piece, ...]:
        """The views that make up a Parameter, and the rows that no layer has; empty without views."""
        own = sorted(
            (view[1][0], self.count + index) for index, view in enumerate(self.views) if view[0] == position
        )
        if not own:
            return ()
        rows, *others = self.shapes[position]
        pieces: list[Piece] = []
        end = 0
        for begin, view in [*own, (rows, -1)]:
            if begin > end:
                pieces.append((position, *_slice(end, (begin - end, *others))))
            if view >= 0:
                pieces.append((view, (), ()))
                end = begin + self.shapes[view][0]
        return tuple(pieces)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = ()
        for gradient in gradients:
            found = (*found, self.cast(gradient, ms.float32))
        for position, begin, size in self.views:
            found = (*found, self.slice(found[position], begin, size))
        return found

    def sources(self, preconditioned: int, sources: Sequence[int]) -> tuple[int, ...]:
        """Index of each Parameter's update in the result of :meth:`joined`.

        Args:
            preconditioned: number of preconditioned gradients.
            sources: index of the update of each element of the output in ``(*preconditioned, *output)``.

        Returns:
            One index per Parameter.
        """
        self.update_of = tuple(sources)
        self.rewritten = tuple(
            position
            for position in range(self.count)
            if self.joins[position]
            or (self.types[position] != ms.float32 and sources[position] < preconditioned)
        )
        end = preconditioned + len(self.owners)
        found = [end + len(self.rewritten) + position for position in range(self.count)]
        for position in range(self.count):
            if position in self.rewritten:
                found[position] = end + self.rewritten.index(position)
            elif sources[position] < preconditioned:
                found[position] = sources[position]
        return tuple(found)

    def joined(
        self, preconditioned: tuple[Tensor, ...], viewed: tuple[Tensor, ...], gradients: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Append whole updates, in their Parameters' types, to the updates of the layers.

        Args:
            preconditioned: U of the layers.
            viewed: the output of the operator.
            gradients: its input.

        Returns:
            ``(*preconditioned, *viewed, *whole, *gradients)``, to be indexed by :meth:`sources`.
        """
        updates = (*preconditioned, *viewed)
        found = updates
        for position in self.rewritten:
            update = updates[self.update_of[position]]
            if len(self.joins[position]) > 0:
                parts: tuple[Tensor, ...] = ()
                for view, begin, size in self.joins[position]:
                    part = updates[self.update_of[view]]
                    parts = (*parts, self.slice(part, begin, size) if len(size) > 0 else part)
                update = self.concat(parts)
            found = (*found, self.cast(update, self.types[position]))
        return (*found, *gradients)


def _slice(begin: int, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (begin, *(0 for _ in shape[1:])), tuple(int(size) for size in shape)
