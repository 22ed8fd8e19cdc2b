"""What a person can ask an optimizer for between steps: factors, updates, counts, averages, traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.discover import FirstOrderCell
from ms_kfac.capture.layer import Layer
from ms_kfac.optim.averaging import PolyakAverage
from ms_kfac.optim.summary import LayerRow, operator_forms, summary_text
from ms_kfac.parallel.synchronization import Synchronization
from ms_kfac.parallel.traffic import Traffic
from ms_kfac.refresh import RefreshPolicy
from ms_kfac.statistics.verification import Verification


class Introspection:
    """Mixin of :class:`ms_kfac.optim.base.SecondOrderOptimizer`.

    Nothing here runs inside a compiled training step.
    """

    parameters: Any
    preconditioner: Any
    blocks: Any
    sharing: str
    factor_policy: RefreshPolicy
    inverse_policy: RefreshPolicy
    statistics_schedule: Any
    inverse_schedule: Any
    commit: Any
    commit_lone: Any
    has_lone_blocks: bool
    verification: Verification
    distributed: bool
    curvature: Any
    _synchronization: Any
    averages: bool
    average: PolyakAverage
    global_step: Any
    get_parameters: Any
    preconditioned_gradients: Any
    _layers: Sequence[Layer]
    _first_order: Sequence[FirstOrderCell]
    _options_in_force: Mapping[str, object]
    clips: bool
    damping: Any
    last_clip: Parameter

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Hold Polyak's averages in the network while a ``with`` block runs; then the weights come back.

        Before the first step the weights are their own average. What is not trained, like the moving moments
        of BatchNorm, stays that of the present weights. A training step inside is lost.

        Returns:
            The context manager. The weights come back when an exception leaves the block, too.

        Raises:
            ValueError: if the optimizer was made with ``averaging=None``.
        """
        if not self.averages:
            raise ValueError(
                "averaged_weights() needs averaging= to be a number in [0, 1) when the optimizer is made, "
                "got None"
            )
        if int(self.global_step.asnumpy().item()) == 0:
            # Nothing has been averaged yet; weights may have been loaded since the optimizer was made.
            return nullcontext()
        return self.average.in_place()

    def restore(self, checkpoint: Mapping[str, Parameter]) -> None:
        """Load a state into this optimizer and its network after steps have been taken.

        ``mindspore.load_param_into_net`` serves before the first step. Afterwards it would leave compiled
        steps, which hold control flow on these Parameters, on the old buffers; this writes into them.

        Args:
            checkpoint: what ``mindspore.load_checkpoint`` returned; names that the optimizer does not have
                are passed over, and Parameters that it does not name stay as they are.

        Raises:
            ValueError: if compiled steps can't go on from it: SKFAC's factors have other ranks in it.
        """
        for block in self.blocks:
            block.check_checkpoint(checkpoint)
        for parameter in self.get_parameters():
            if parameter.name in checkpoint:
                ops.assign(parameter, ms.Tensor(checkpoint[parameter.name].asnumpy(), parameter.dtype))
        self.statistics_schedule.expire()

    def precondition(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Preconditioned gradients with the present inverses, before trust region, weight decay and momentum.

        Args:
            gradients: one a parameter, in the order of ``parameters``, unscaled.

        Returns:
            U in the parameters' shapes; the gradients of first-order parameters come back as they are.
            With ``exchange="gradients"`` on many devices all ranks have to call it.

        Raises:
            ValueError: if the number of gradients is not the number of parameters.
        """
        if len(gradients) != len(self.parameters):
            raise ValueError(
                f"gradients must hold one Tensor a parameter ({len(self.parameters)}), got {len(gradients)}"
            )
        if not self._layers:
            return tuple(gradients)
        # Not under `ms.jit`: once MindSpore 2.10 has compiled a method of the optimizer by itself, training
        # steps that are compiled later leave the optimizer's step out.
        return tuple(self.preconditioned_gradients(tuple(gradients)))

    def factors(self, layer_name: str) -> dict[str, NDArray[np.float32]]:
        """The present statistics of a layer.

        Args:
            layer_name: the cell's name in the network before tapping ("conv1", "layer1.0.conv2"); the
                Parameter's own where ``blocks`` gives one outside all layers a block.

        Returns:
            NumPy float32 arrays by name ("A", "G" for K-FAC), undamped and moving-averaged, in the scale of
            the papers: per sample, whatever reduction and loss scale; the bias as last row and column; a
            leading axis of groups for grouped convolutions. Whatever the method, an embedding table has the
            diagonal of A as "A" (V,) next to "G", and a normalisation layer "F" (C, 2, 2), gamma before beta;
            a diagonal block has "s".
            All zeros before a backward pass has reached the layer. On many devices they are what this rank
            has: since statistics last met, its own batches alone; see :meth:`synchronize`.

        Raises:
            KeyError: if no preconditioned layer has that name.
        """
        for layer, block in zip(self._layers, self.blocks):
            if layer.name == layer_name:
                factors: dict[str, NDArray[np.float32]] = block.factors()
                return factors
        known = ", ".join(layer.name for layer in self._layers)
        raise KeyError(f"no preconditioned layer {layer_name!r}; there are: {known}")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the preconditioned layers, then of the Parameters outside layers that have blocks."""
        return tuple(layer.name for layer in self._layers)

    def refreshes(self) -> dict[str, int]:
        """How often curvature has been refreshed so far.

        Returns:
            "statistics": batches of statistics taken; "inverses": inverses recomputed. Each counts all layers
            together while they share a policy's answer, and every layer on its own where the policy decides
            by layer. "refused": batches of which some layer held NaN or Inf, so that its statistics stayed as
            they were.
        """
        commits = [self.commit, self.commit_lone] if self.has_lone_blocks else [self.commit]
        return {
            "statistics": int(self.statistics_schedule.refreshes.asnumpy()),
            "inverses": int(self.inverse_schedule.refreshes.asnumpy()),
            "refused": max(int(commit.outcome.asnumpy()[0]) for commit in commits),
        }

    def synchronize(self) -> None:
        """Make the state of all ranks equal, so that one rank's checkpoint serves all.

        Between refreshes statistics of the last batches are on the ranks that took them, and with
        ``exchange="gradients"`` inverses are with their owners only. All ranks have to call this, or those
        that do wait for the others. Training goes on as it would have without. One rank alone has nothing to
        do.
        """
        if not self.distributed:
            return
        if self._synchronization is None:
            # Past the Cell's own attributes: no part of the optimizer's step or of its Parameters.
            self.__dict__["_synchronization"] = Synchronization(list(self.blocks), self.curvature)
        self._synchronization()

    def traffic(self) -> Traffic | None:
        """What this optimizer's collectives move, those of the gradients' own average apart.

        Returns:
            The bytes; None where the curvature is not distributed.
        """
        if not self.distributed:
            return None
        traffic: Traffic = self.curvature.traffic(getattr(self.preconditioner, "gathering", None))
        return traffic

    def summary(self, *, every_layer: bool = False) -> str:
        """What is preconditioned, what stays first-order and why, and the options in force.

        Args:
            every_layer: one row per layer in networks of more than 16 layers, too, and the names of all
                first-order parameters. Default: False, neighbours that differ in their names alone share a
                row.

        Returns:
            A text: the options; the share of the weights that is preconditioned; one row per layer with name,
            kind, block, dimensions, KiB, form of the operators, and what the last commit found of it
            ("verified", "mismatch", "no pass", "not finite", "unchecked"); then the first-order parameters by
            reason.
        """
        verified = [checked.state for checked in self.verification.checked]
        # Parameters outside layers have no pass to be checked against.
        verified += ["unchecked"] * (len(self.blocks) - len(verified))
        rows = []
        for layer, block, preconditioning, state in zip(
            self._layers, self.blocks, self.preconditioner.native, verified
        ):
            form = operator_forms(
                statistics=getattr(block.operator, "kernel", None) is not None,
                refresh=block.native_refresh() is not None,
                preconditioning=preconditioning,
            )
            kind = layer.kind + (" (tapped at its primitive)" if layer.tapped_primitive else "")
            weights = sum(int(parameter.size) for parameter in layer.parameters())
            rows.append(
                LayerRow(
                    layer.name, kind, block.kind, block.dimensions(), block.bytes(), form, state, weights
                )
            )
        return summary_text(
            repr(self), self._options_in_force, rows, self._first_order, every_layer=every_layer
        )

    @property
    def current_damping(self) -> float:
        r"""The damping :math:`\lambda` of the coming step. Reads a number from the device."""
        return float(self.damping(self.global_step).asnumpy())

    @property
    def clip_factor(self) -> float:
        r"""The factor :math:`\nu` by which the KL clip shortened the last step.

        1.0 where the step was within the trust region, before the first step, and with ``kl_clip=None``.
        Reads a number from the device.
        """
        return float(self.last_clip.asnumpy()) if self.clips else 1.0

    def __repr__(self) -> str:
        ranks = f", distributed over {self.curvature!r}" if self.distributed else ""
        return (
            f"{type(self).__name__}({len(self._layers)} layers preconditioned, sharing {self.sharing!r}, "
            f"factors {self.factor_policy!r}, inverses {self.inverse_policy!r}{ranks})"
        )
