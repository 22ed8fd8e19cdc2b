r"""Check that a step is finite, before it moves the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from ms_kfac.kernels.callbacks import Handle
from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.kernels.reporter import Reporter

# Codes of kernels/interface/reports.h.
_GRADIENT, _UPDATE, _WEIGHT = range(3)
_NAN, _INF = 1, 2


class CheckStep(nn.Cell):
    r"""Replace the scale of the updates by NaN if the step is not finite, so that the step moves no weight.

    A preconditioned parameter is finite if its :math:`\langle dW, U \rangle` is, which is computed anyway.
    Gradients of first-order parameters are read. So the check costs no read of the preconditioned gradients,
    and the check itself makes the host read nothing.

    On CPUs a reporter is told of what is not finite, by name. On other devices the step is only counted.

    Args:
        weights: the parameters.
        owners: for each product, the index of its parameter.
        name: name of the Parameter ``skipped``.
        reporter: handle of the reporter.

    Attributes:
        skipped: number of skipped steps, the first and the last of them: int32 (3,).

    Inputs:
        - **step** (Tensor) - number of steps before this one, int32, shape (1,).
        - **due** (Tensor) - scalar int32; if it is not 0, the native kernel also reports a finite step.
        - **scale** (Tensor) - scalar float32.
        - **products** (Tensor) - :math:`\langle dW, U \rangle`, float32, at least one per owner.
        - **gradients** (tuple[Tensor]) - one per parameter.

    Outputs:
        Tensor, scalar float32: the scale, or NaN.

    Platforms: CPU (native or fallback), GPU, Ascend (fallback, composed of IsFinite and ReduceAll).
    """

    def __init__(
        self, weights: Sequence[Parameter], owners: Sequence[int], *, name: str, reporter: Handle[Reporter]
    ) -> None:
        super().__init__(auto_prefix=False)
        # Not in the Cell's registry, whose keys are the network's names and could be those of attributes.
        self.__dict__["weights"] = ParameterTuple(weights)
        self.__dict__["reporter"] = reporter
        self.skipped = Parameter(Tensor(np.zeros(3, np.int32)), name=name, requires_grad=False)
        self.owners = tuple(owners)
        preconditioned = set(owners)
        self.first_order = tuple(index for index in range(len(weights)) if index not in preconditioned)
        self.native = is_native("check_step")
        self.tells = ms.get_context("device_target") == "CPU"
        if self.native:
            self.kernel = native_operator(
                "check_step",
                shapes=lambda *inputs: [],
                owners=list(owners),
                first_order=list(self.first_order),
                reporter=reporter.number,
            )
            return
        self.isfinite = ops.IsFinite()
        self.reduce_all = ops.ReduceAll()
        self.nan = Tensor(float("nan"), ms.float32)
        self.cast = ops.Cast()
        self.assign = ops.Assign()
        self.equal = ops.Equal()
        self.report = ops.Custom(
            self._report,
            out_shape=lambda *shapes: (1,),
            out_dtype=lambda *dtypes: ms.float32,
            func_type="pyfunc",
        )

    def construct(
        self, step: Tensor, due: Tensor, scale: Tensor, products: Tensor, gradients: tuple[Tensor, ...]
    ) -> Tensor:
        if self.native:
            return self.kernel(step, due, scale, products, self.skipped, gradients, self.weights)
        return self.fallback(step, scale, products, gradients)

    def fallback(
        self, step: Tensor, scale: Tensor, products: Tensor, gradients: tuple[Tensor, ...]
    ) -> Tensor:
        """Fallback, composed of MindSpore operators."""
        finite = self.reduce_all(self.isfinite(products))
        for index in self.first_order:
            finite = ops.logical_and(finite, self.reduce_all(self.isfinite(gradients[index])))
        count, step = self.skipped[:1], step.reshape((1,))
        first = ops.where(count > 0, self.skipped[1:2], step)
        counted = ops.concat((count + 1, first, step))
        self.assign(self.skipped, ops.where(finite, self.skipped, counted))
        if self.tells:  # noqa: SIM102
            if ops.logical_not(finite):
                scale = ops.depend(scale, self.tell(step, products, gradients))
        return ops.where(finite, scale, self.nan)

    def tell(self, step: Tensor, products: Tensor, gradients: tuple[Tensor, ...]) -> Tensor:
        """Tell the reporter which gradients and weights hold NaN or Inf."""
        finite: tuple[Tensor, ...] = ()
        for array in (*gradients, *self.weights):
            finite = (*finite, self.reduce_all(self.isfinite(array)))
        known: tuple[Tensor, ...] = ()
        for array in (*gradients, *self.weights):
            known = (*known, self.reduce_all(self.equal(array, array)))
        flags = self.cast(ops.stack((ops.stack(finite), ops.stack(known))), ms.int32)
        return self.report(step, products, flags)

    def _report(self, step: NDArray[Any], products: NDArray[Any], flags: NDArray[Any]) -> NDArray[np.float32]:
        # Per array: whether it is finite, and whether it has no NaN.
        kinds = np.where(flags[0] > 0, 0, np.where(flags[1] > 0, _INF, _NAN)).reshape(2, -1)
        found = [
            (array, index, kind)
            for array, own in ((_GRADIENT, kinds[0]), (_WEIGHT, kinds[1]))
            for index, kind in enumerate(own)
            if kind
        ]
        for index, product in zip(self.owners, np.ravel(products)):
            if not np.isfinite(product) and not kinds[0][index]:
                found.append((_UPDATE, index, _NAN if np.isnan(product) else _INF))
        self.reporter.function(int(step[0]), np.array(found, np.int64).reshape(-1, 3), "")
        return np.zeros(1, np.float32)


def is_taken(scale: Tensor) -> Tensor:
    """Whether a step is taken. A GPU's host reads this, so native kernels look at the scale themselves.

    Args:
        scale: the output of :class:`CheckStep`.

    Returns:
        Scalar bool.
    """
    return ops.isfinite(scale)
