"""Views of gradients: rows of a Parameter as a layer's weight, and weights of half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn, ops

import ms_kfac
from ms_kfac.ops.step.gradient_views import GradientViews
from ms_kfac.ops.step.parameter_rows import ParameterRows
from tests.support.bank import backward, tensor


class RoundTrip(nn.Cell):
    """Doubles the gradient of every layer, and returns each Parameter's update."""

    def __init__(self, views: GradientViews) -> None:
        super().__init__()
        self.views = views
        order = [position for own in views.positions for position in own]
        self.order = tuple(order)
        everything = range(len(views.owners))
        sources = [order.index(i) if i in order else len(order) + i for i in everything]
        self.sources = views.sources(len(order), sources)

    def construct(self, gradients: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        viewed = self.views(gradients)
        doubled = ()
        for position in self.order:
            doubled = (*doubled, viewed[position] * 2)
        updates = self.views.joined(doubled, viewed, gradients)
        found = ()
        for source in self.sources:
            found = (*found, updates[source])
        return found


def test_rows_and_types_come_back(mode: int, rng: np.random.Generator) -> None:
    """Parameters: whole, rows with a gap at each end and between, half as a layer's, half first-order."""
    shapes = {"whole": (3, 2), "rows": (7, 2), "half": (2, 2), "brain": (3,), "first_order": (4,)}
    types = {"half": ms.float16, "brain": ms.bfloat16, "first_order": ms.float16}
    values = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    parameters = {
        name: Parameter(ms.Tensor(value, types.get(name, ms.float32)), name=name)
        for name, value in values.items()
    }
    rows = parameters["rows"]
    layers = [
        (parameters["half"], parameters["brain"]),
        (ParameterRows(rows, 4, 6),),
        (parameters["whole"],),
        (ParameterRows(rows, 1, 3),),
    ]
    views = GradientViews(list(parameters.values()), layers)
    assert views.changes
    gradients = tuple(parameter * 1 for parameter in parameters.values())
    found = RoundTrip(views)(gradients)
    factors = {"rows": np.array([1, 2, 2, 1, 2, 2, 1])[:, None], "first_order": 1}
    for (name, parameter), update in zip(parameters.items(), found):
        assert update.dtype == parameter.dtype, name
        exact = ops.cast(parameter, ms.float32).asnumpy()
        # Doubling is exact in every type.
        doubled = ops.cast(update, ms.float32).asnumpy()
        np.testing.assert_array_equal(doubled, exact * factors.get(name, 2), err_msg=name)


def test_whole_float32_weights_need_no_views() -> None:
    parameters = [Parameter(tensor(np.ones((2, 2))), name=name) for name in "ab"]
    views = GradientViews(parameters, [(parameters[1],)])
    assert not views.changes
    assert views.positions == ((1,),)


class InFloat32(nn.Cell):
    """A primitive computed in float32, as MindSpore 2.10 has no CPU kernel of it for bfloat16."""

    def __init__(self, primitive: Any) -> None:
        super().__init__(auto_prefix=False)
        self.primitive = primitive

    def construct(self, x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return ops.cast(self.primitive(ops.cast(x, ms.float32), ops.cast(y, ms.float32)), x.dtype)


def dense(inputs: int, outputs: int, dtype: ms.Type) -> nn.Dense:
    layer = nn.Dense(inputs, outputs, dtype=dtype)
    if dtype == ms.bfloat16:
        layer.matmul, layer.bias_add = InFloat32(layer.matmul), InFloat32(layer.bias_add)
    return layer


class Half(nn.Cell):
    """Two dense layers of which one, or both, have weights of half precision."""

    def __init__(self, *types: ms.Type) -> None:
        super().__init__()
        self.first, self.second = dense(5, 4, types[0]), dense(4, 3, types[1])
        self.types = types

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        x = ops.tanh(ops.cast(self.first(ops.cast(x, self.types[0])), ms.float32))
        return ops.cast(self.second(ops.cast(x, self.types[1])), ms.float32)


def squared_error(net: nn.Cell) -> Callable[[ms.Tensor], ms.Tensor]:
    def forward(x: ms.Tensor) -> ms.Tensor:
        return ops.square(net(x) - 0.3).mean(0).sum()

    return forward


FLOAT16, BFLOAT16 = (ms.float16, ms.float32), (ms.bfloat16, ms.float32)


@pytest.mark.parametrize(
    ("types", "rule"),
    [
        *((types, rule) for types in (FLOAT16, FLOAT16[::-1]) for rule in ("momentum", "nesterov", "adam")),
        (BFLOAT16, "adam"),
        ((ms.bfloat16, ms.bfloat16), "nesterov"),
    ],
)
def test_half_weights_train_like_float32(
    mode: int, types: tuple[ms.Type, ms.Type], rule: str, rng: np.random.Generator
) -> None:
    """Statistics are float32; the update is rounded to the weight's type."""
    nets = Half(*types), Half(ms.float32, ms.float32)
    # Values that the weights' type holds exactly.
    exact = ms.bfloat16 if ms.bfloat16 in types else ms.float16
    for parameters in zip(*(net.trainable_params() for net in nets)):
        value = ops.cast(tensor(rng.standard_normal(parameters[0].shape) * 0.5), exact)
        for parameter in parameters:
            parameter.set_data(ops.cast(value, parameter.dtype))
    data = ops.cast(ops.cast(tensor(rng.standard_normal((8, 5))), exact), ms.float32).asnumpy()
    start = [parameter.asnumpy().copy() for parameter in nets[1].trainable_params()]
    optimizers = []
    for net in nets:
        options: dict[str, object] = {"damping": 0.1, "factor_interval": 1, "inverse_interval": 1}
        if rule == "nesterov":
            options.update(nesterov=True, weight_decay=0.1, decoupled_weight_decay=True)
        if rule == "adam":
            options.update(first_order="adam", skip=("second",))
        optimizer = ms_kfac.KFAC(net, 0.1, **options)
        for _ in range(2):
            optimizer(backward(squared_error(net), optimizer.parameters, data))
        optimizers.append(optimizer)
    assert len(optimizers[0].layers) == (1 if rule == "adam" else 2)
    for name in optimizers[0].layers:
        found, expected = (optimizer.factors(name) for optimizer in optimizers)
        for factor in "AG":
            assert found[factor].dtype == np.float32
            scale = np.abs(expected[factor]).max()
            # A bfloat16 has 8 bits, a float16 has 11, and gradients pass through several of them.
            np.testing.assert_allclose(found[factor], expected[factor], rtol=0, atol=2e-2 * scale)
    assert optimizers[0].summary().count("verified") == 1 + len(optimizers[0].layers)
    for half, single, before in zip(*(net.trainable_params() for net in nets), start):
        # Two steps, each with a rounding of weights below 1 to 8 bits, or 11, and gradients of as many.
        tolerance = 4e-3 if half.dtype == ms.bfloat16 else 1e-3
        assert np.abs(single.asnumpy() - before).max() > tolerance, half.name
        found = half.float().asnumpy()
        np.testing.assert_allclose(found, single.asnumpy(), rtol=0, atol=tolerance, err_msg=half.name)
