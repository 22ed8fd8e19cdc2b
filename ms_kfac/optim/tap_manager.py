"""Discovery of the layers that an optimizer taps; attaching and detaching its taps."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mindspore import nn

from ms_kfac.capture.attach import attach, attached_tap, detach
from ms_kfac.capture.discover import FirstOrderCell, discover, names_of_cells, unmatched_patterns
from ms_kfac.capture.layer import Layer
from ms_kfac.capture.tap import SampleCounter, Tap
from ms_kfac.ops.statistics.samples_first import samples_first
from ms_kfac.ops.step.parameter_rows import ParameterRows, parameter_of
from ms_kfac.optim.block_choice import BlockChoice
from ms_kfac.optim.pause import Pause
from ms_kfac.optim.summary import first_order_warning
from ms_kfac.user_warning import warn_user


class TapManager:
    """How an optimizer observes its network, and how to pause that."""

    parameters: Any
    blocks: Any
    statistics_schedule: Any
    mean_reduction: bool
    _patterns: tuple[str, ...]
    _choice: BlockChoice
    counts_samples: bool
    sample_counters: Any
    # `_tapped`: layers with taps. `_layers`: all layers with blocks, also Parameters outside layers.
    _tapped: Sequence[Layer]
    _layers: Sequence[Layer]
    _first_order: Sequence[FirstOrderCell]
    _taps: list[Tap]

    def _discover(self, network: nn.Cell) -> tuple[list[Layer], list[FirstOrderCell]]:
        return discover(network, self.parameters, self._patterns, objection=self._choice.objection)

    def _has_lone_block(self, layer: Layer) -> bool:
        if any(re.search(pattern, layer.name) for pattern in self._patterns):
            return False
        return self._choice.objection(layer) is None

    def _warn_of_first_order(self, rule: str) -> None:
        left = [*self._patterns, *self._choice.first_order_patterns()]
        text = first_order_warning(self._layers, self._first_order, left, rule)
        if text and not self._choice.leaves_lone_parameters:
            warn_user(f"{type(self).__name__}: {text}")

    def _warn_of_idle_patterns(self, network: nn.Cell) -> None:
        own = [parameter.name for cell in self._first_order for parameter in cell.parameters]
        lone = [layer.name for layer in self._layers[len(self._tapped) :]]
        for pattern in unmatched_patterns([*names_of_cells(network), *own, *lone], self._patterns):
            warn_user(f"skip: no layer's name has {pattern!r}, so that it skips nothing")
        requested = [cell.name for cell in self._first_order if cell.requested]
        names = [*(layer.name for layer in self._tapped), *requested, *lone]
        left = self._choice.first_order_patterns()
        for pattern in unmatched_patterns(names, self._choice.patterns):
            if pattern not in left or unmatched_patterns(own, [pattern]):
                warn_user(
                    f"blocks: no layer that can have a block has {pattern!r} in its name, so that it changes "
                    "nothing"
                )

    def move_taps(self, network: nn.Cell) -> None:
        """Move the taps to another network that holds the same Parameters, such as amp level O1 creates.

        Args:
            network: the network to train from now on.

        Raises:
            ValueError: if it lacks one of the layers.
        """
        found = {_weight_key(layer): layer for layer in self._discover(network)[0]}
        missing = [layer.name for layer in self._tapped if _weight_key(layer) not in found]
        if missing:
            raise ValueError(
                f"network must contain all layers of the optimizer, got one without {', '.join(missing)}. "
                "MindSpore 2.10 creates such networks if amp level O1 is used twice in one process"
            )
        self.detach()
        self.__dict__["_network"] = weakref.ref(network)
        lone = self._layers[len(self._tapped) :]
        self._tapped = [replace(found[_weight_key(layer)], name=layer.name) for layer in self._tapped]
        self._layers = [*self._tapped, *lone]
        self._attach_taps()

    def _counting_layers(self) -> list[int]:
        # The layer whose samples count, then the layer that counts if no pass reaches the first: it may be
        # bypassed or frozen. Batch normalization in evaluation mode bypasses its tap, and the first axis of
        # an embedding's ids may be positions. Both count samples only if there is no other layer.
        last_resorts = ("normalization", "embedding")
        everything = list(range(len(self._tapped)))
        others = [index for index in everything if self._tapped[index].kind not in last_resorts]
        candidates = others or everything
        return list(dict.fromkeys([candidates[0], candidates[-1]])) if candidates else []

    def _create_counters(self, prefix: str) -> None:
        self.counting_layers = tuple(self._counting_layers()) if self.counts_samples else ()
        if self.counts_samples and not self._tapped:
            option = "blocks['other']" if self.mean_reduction else "reduction='sum'"
            raise ValueError(
                f"{option} counts the batch's samples at a preconditioned layer, and there is none"
            )
        names = (f"{prefix}.samples", f"{prefix}.spare_samples")
        counters = [
            SampleCounter(name, self.blocks[index].record) for index, name in zip(self.counting_layers, names)
        ]
        self.sample_counters = nn.CellList(counters, auto_prefix=False)

    def _attach_taps(self) -> None:
        self._taps = []
        counters = dict(zip(self.counting_layers, self.sample_counters))
        gates = self.statistics_schedule.gates
        for index, (layer, block, gate) in enumerate(zip(self._tapped, self.blocks, gates)):
            counter = counters.get(index)
            if counter is not None:
                counter.sample_axis = layer.sample_axis
                counter.feature_axes = layer.operators.feature_axes
            operator = samples_first(block.operator, layer.sample_axis)
            self._taps.append(Tap(operator, block.staged, gate, counter))
        replaced = attach(self._tapped, self._taps)
        if replaced:
            warn_user(
                f"{type(self).__name__} took over layers {', '.join(replaced)}: an earlier optimizer on this "
                "network no longer receives statistics of them"
            )

    def detach(self) -> None:
        """Remove this optimizer's taps from the network.

        The network then trains as if it had never been tapped. Layers that a later optimizer has taken over
        keep the taps of that optimizer.
        """
        for layer, tap in zip(self._tapped, self._taps):
            if attached_tap(layer) is tap:
                detach(layer.cell)

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Remove this optimizer's taps for the duration of a ``with`` block.

        Use it for ``mindspore.export``, which rejects Parameters that do not belong to the network. Training
        continues unchanged afterwards. A training step inside the block takes no statistics.

        Yields:
            None. The taps are restored at exit, also after an exception.

        Examples:
            >>> import mindspore as ms
            >>> from mindspore import nn
            >>> import ms_kfac
            >>> net = nn.Dense(8, 4)
            >>> optimizer = ms_kfac.KFAC(net, 0.03)
            >>> with optimizer.detached():
            ...     ms.export(net, ms.ops.ones((1, 8)), file_name="net", file_format="MINDIR")
        """
        own = [(layer, tap) for layer, tap in zip(self._tapped, self._taps) if attached_tap(layer) is tap]
        self.detach()
        try:
            yield
        finally:
            attach([layer for layer, _ in own], [tap for _, tap in own])

    def paused(self) -> Pause:
        """Take no statistics of the backward passes inside a ``with`` block.

        Use it for passes whose gradients are not given to this optimizer: a generator's pass through the
        discriminator, adversarial examples, gradients for an evaluation. Statistics that were taken before
        the block are kept. Compiled functions may be called inside the block, but the block must not be
        inside a compiled function. Other optimizers may take their steps inside the block.

        Returns:
            A context manager. It restores the gates at exit, also after an exception.

        Examples:
            >>> import mindspore as ms
            >>> from mindspore import nn
            >>> import ms_kfac
            >>> net = nn.Dense(8, 4)
            >>> optimizer = ms_kfac.KFAC(net, 0.03)
            >>> gradient_of_input = ms.grad(net)
            >>> with optimizer.paused():
            ...     direction = gradient_of_input(ms.ops.ones((1, 8)))
        """
        return Pause(self)


def _weight_key(layer: Layer) -> tuple[int, int]:
    rows = layer.weight
    return id(parameter_of(rows)), rows.begin if isinstance(rows, ParameterRows) else 0
