"""User-facing queries between steps: factors, updates, averages, traffic, the summary."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor
from numpy.typing import NDArray

from ms_kfac.capture.discover import FirstOrderCell
from ms_kfac.capture.layer import OTHER
from ms_kfac.optim.averaging import PolyakAverage
from ms_kfac.optim.checkpoint import Restored, load_checkpoint
from ms_kfac.optim.diagnostics import Diagnostics
from ms_kfac.optim.step import check_gradient_count
from ms_kfac.optim.summary import LayerRow, operator_forms, summary_text
from ms_kfac.parallel.distributed_curvature import Synchronization
from ms_kfac.parallel.traffic import Traffic
from ms_kfac.refresh import RefreshPolicy

# Why a layer has no statistics after the first commit, by the result of the last one.
_WITHOUT_STATISTICS = {
    "mismatch": "its statistics do not belong to its gradient: the weight is used outside the layer or "
    "transformed before use, or other passes came between gradient and step",
    "not finite": "all its batches of statistics held NaN or Inf",
    "verified": "its statistics did not belong to its gradient at earlier steps",
}
_WITHOUT_PASS = (
    "no backward pass has reached its statistics: the layer is bypassed, or recomputed without its tap"
)
_WITHOUT_BATCH = "no batch of it was committed: its gradients held NaN or Inf, or no samples were counted"


class Introspection(Diagnostics):
    """What every optimizer can be asked for."""

    parameters: Any
    preconditioner: Any
    sharing: str
    factor_policy: RefreshPolicy
    inverse_policy: RefreshPolicy
    distributed: bool
    curvature: Any
    _synchronization: Any
    averages: bool
    average: PolyakAverage
    get_parameters: Any
    preconditioned_gradients: Any
    _network: Any
    _first_order: Sequence[FirstOrderCell]
    _first_order_rule: str
    _options_in_force: Mapping[str, object]

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Put the Polyak-averaged weights into the network for the duration of a ``with`` block.

        Before the first step the average equals the weights. Untrained state, such as the moving moments of
        BatchNorm, is not averaged. A training step inside the block is lost.

        Returns:
            A context manager. It restores the weights at exit, also after an exception.

        Raises:
            ValueError: if the optimizer has ``averaging=None``.
        """
        if not self.averages:
            raise ValueError(
                "averaged_weights() needs averaging= to be a number in [0, 1) when the optimizer is made, "
                "got None"
            )
        if int(self.global_step.asnumpy().item()) == 0:
            # The average may differ from weights that were loaded after construction.
            return nullcontext()
        return self.average.in_place()

    def restore(self, checkpoint: Mapping[str, Parameter] | str | os.PathLike[str]) -> Restored:
        """Load a checkpoint into this optimizer and its network, before or after training has started.

        ``mindspore.load_param_into_net`` writes one Parameter after the other until one does not fit. This
        method checks first.

        Args:
            checkpoint: the result of ``mindspore.load_checkpoint``, or the path of the file. Unknown names
                are ignored, and Parameters that it lacks stay unchanged, with a warning if they are the
                network's; it must hold all statistics and inverses or none. Polyak averages that it lacks
                start from the loaded weights. Names may differ by a cell around the network
                ("backbone.conv.weight").

        Returns:
            The names of the Parameters that were loaded, kept and ignored. ``print`` tells them in one line.

        Raises:
            TypeError: if it is neither a mapping of Tensors nor a path. Nothing was written then.
            ValueError: if the file can't be read, if no name is the network's, if a shape differs, if it
                holds a part of the statistics and inverses, or if compiled steps can't continue from it
                (SKFAC's factors have different ranks in it). Nothing was written then.
        """
        network = self._network()
        others = () if network is None else network.get_parameters()
        cells = [self.statistics_schedule, self.inverse_schedule, self.commit]
        cells += [self.commit_lone] if self.has_lone_blocks else []
        # Without the cells inside the schedules: their damping may be a schedule of the user.
        curvature = [p for cell in cells for p in cell.get_parameters(expand=False)]
        restored = load_checkpoint(self, others, [*self.blocks.get_parameters(), *curvature], checkpoint)
        # The step count that came along would let averages of other weights outlive the restored ones.
        self.average.restart({*restored.network, *restored.optimizer})
        self.statistics_schedule.expire()
        self._forget_findings()
        return restored

    def precondition(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Precondition gradients with the present inverses, without trust region, weight decay or momentum.

        Args:
            gradients: one per parameter, in the order of ``parameters``, of the unscaled mean loss. With
                ``reduction="sum"``, divide those of the summed loss by the number of samples.

        Returns:
            U in the parameters' shapes; the gradients of first-order parameters are returned unchanged. With
            ``exchange="gradients"`` on several devices, all ranks must call this method.

        Raises:
            ValueError: if the number of gradients is not the number of parameters.
        """
        check_gradient_count(len(gradients), len(self.parameters))
        if not self._layers:
            return tuple(gradients)
        # Not under `ms.jit`: after MindSpore 2.10 compiles one method of the optimizer separately, training
        # steps compiled later omit the optimizer's step.
        return tuple(self.preconditioned_gradients(tuple(gradients)))

    def factors(self, layer_name: str) -> dict[str, NDArray[np.float32]]:
        """Current statistics of a layer.

        Args:
            layer_name: the cell's name in the network before tapping ("conv1", "layer1.0.conv2"). For a
                Parameter outside layers with a block from ``blocks``: the name of the Parameter.

        Returns:
            NumPy float32 arrays by name ("A", "G" for K-FAC), undamped and moving-averaged, in the scale of
            the papers: per sample, independent of reduction and loss scale. The bias is the last row and
            column. Grouped convolutions have a leading axis of groups. With every method, an embedding table
            has the diagonal of A as "A" (V,) in addition to "G", a normalization layer has "F" (C, 2, 2) with
            gamma before beta, and a diagonal block has "s". All values are zero until a backward pass reaches
            the layer. On several devices these are local values: since the last all-reduce of the statistics
            they contain only this rank's batches; see :meth:`synchronize`.

        Raises:
            KeyError: if no preconditioned layer has that name.
        """
        for layer, block in zip(self._layers, self.blocks):
            if layer.name == layer_name:
                factors: dict[str, NDArray[np.float32]] = block.factors()
                return factors
        known = ", ".join(layer.name for layer in self._layers)
        raise KeyError(f"no preconditioned layer {layer_name!r}; there are: {known}")

    def synchronize(self) -> None:
        """Make the state of all ranks equal, so that the checkpoint of one rank is valid for all.

        Between refreshes, statistics of the last batches are local to each rank. With
        ``exchange="gradients"``, only the owner of a layer holds its inverses. All ranks must call this
        method, otherwise the callers wait forever. It does not change the course of training. With one rank
        it does nothing.
        """
        if not self.distributed:
            return
        if self._synchronization is None:
            # Bypasses Cell.__setattr__, so that it is no part of the step or of the optimizer's Parameters.
            self.__dict__["_synchronization"] = Synchronization(list(self.blocks), self.curvature)
        self._synchronization()

    def traffic(self) -> Traffic | None:
        """Communication volume of this optimizer's collectives, without the gradient all-reduce.

        Returns:
            The bytes; None where the curvature is not distributed.
        """
        if not self.distributed:
            return None
        traffic: Traffic = self.curvature.traffic(getattr(self.preconditioner, "gathering", None))
        return traffic

    def summary(self, *, every_layer: bool = False) -> str:
        """Table of preconditioned layers, first-order parameters with the reason, and the options in force.

        Args:
            every_layer: print one row per layer even for more than 16 layers, and the names of all
                first-order parameters. Default: False: adjacent layers that differ only in name share a row.

        Returns:
            A text with the options, the fraction of weights that is preconditioned, one row per layer, and
            the first-order parameters with the rule that updates them, by reason. A layer without statistics
            after the first commit is first-order. A row has name, kind, block, dimensions, KiB, form of the
            operators, and the result of the last commit: "verified", "mismatch", "no pass", "zero gradient",
            "not finite" or "unchecked".
        """
        rows, first_order = [], list(self._first_order)
        told = self._layer_states()
        for layer, block, preconditioning in zip(self._layers, self.blocks, self.preconditioner.native):
            state = told[layer.name]["verified"]
            if not told[layer.name]["preconditioned"]:
                lone = layer.kind == OTHER
                reason = _WITHOUT_BATCH if lone else _WITHOUT_STATISTICS.get(state, _WITHOUT_PASS)
                kind = type(layer.cell).__name__
                # The name of a Parameter outside layers ends with that of the Parameter.
                name = layer.name.rpartition(".")[0] if lone else layer.name
                first_order.append(FirstOrderCell(name, kind, layer.parameters(), reason))
                continue
            form = operator_forms(
                statistics=getattr(block.operator, "kernel", None) is not None,
                refresh=block.native_refresh() is not None,
                preconditioning=preconditioning,
            )
            kind = layer.kind + (" (tapped at its primitive)" if layer.tapped_primitive else "")
            weights = sum(int(parameter.size) for parameter in layer.parameters())
            rows.append(
                LayerRow(
                    layer.name,
                    kind,
                    block.kind,
                    block.dimensions(),
                    told[layer.name]["bytes"],
                    form,
                    state,
                    weights,
                )
            )
        return summary_text(
            self._described(len(rows)),
            self._options_in_force,
            rows,
            first_order,
            self._first_order_rule,
            every_layer=every_layer,
        )

    def __repr__(self) -> str:
        return self._described(len(self._layers))

    def _described(self, preconditioned: int) -> str:
        ranks = f", distributed over {self.curvature!r}" if self.distributed else ""
        return (
            f"{type(self).__name__}({preconditioned} layers preconditioned, sharing {self.sharing!r}, "
            f"factors {self.factor_policy!r}, inverses {self.inverse_policy!r}{ranks})"
        )
