"""Recurrent cells: ``nn.RNNCell``, ``nn.GRUCell`` and ``nn.LSTMCell``.

Two dense layers per cell, of the input and of the hidden state. All calls of a cell within one backward pass
are locations of the same samples.
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn, ops

from ms_kfac.capture.attach import PlainCopies
from ms_kfac.capture.dense import DenseOperators, linear
from ms_kfac.capture.layer import Layer, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer

_four_gates = ops.Split(1, 4)
_three_gates = ops.Split(1, 3)


class _RoutedCell(PlainCopies):
    TAPS = ("input_tap", "hidden_tap")

    input_tap: Any
    hidden_tap: Any
    weight_ih: Any
    weight_hh: Any
    bias_ih: Any
    bias_hh: Any
    nonlinearity: str


class RoutedRNNCell(_RoutedCell):
    """Computes what ``nn.RNNCell`` computes, with both linear maps passed through taps."""

    def construct(self, x: Tensor, hx: Tensor) -> Tensor:
        gates = self.input_tap(x, linear(x, self.weight_ih, self.bias_ih))
        gates = gates + self.hidden_tap(hx, linear(hx, self.weight_hh, self.bias_hh))
        return ops.tanh(gates) if self.nonlinearity == "tanh" else ops.relu(gates)


class RoutedLSTMCell(_RoutedCell):
    """Computes what ``nn.LSTMCell`` computes, with both linear maps passed through taps."""

    def construct(self, x: Tensor, hx: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, memory = hx
        gates = self.input_tap(x, linear(x, self.weight_ih, self.bias_ih))
        gates = gates + self.hidden_tap(hidden, linear(hidden, self.weight_hh, self.bias_hh))
        enter, forget, proposed, leave = _four_gates(gates)
        memory = ops.sigmoid(forget) * memory + ops.sigmoid(enter) * ops.tanh(proposed)
        return ops.sigmoid(leave) * ops.tanh(memory), memory


class RoutedGRUCell(_RoutedCell):
    """Computes what ``nn.GRUCell`` computes, with both linear maps passed through taps."""

    def construct(self, x: Tensor, hx: Tensor) -> Tensor:
        of_input = self.input_tap(x, linear(x, self.weight_ih, self.bias_ih))
        of_hidden = self.hidden_tap(hx, linear(hx, self.weight_hh, self.bias_hh))
        input_reset, input_update, input_new = _three_gates(of_input)
        hidden_reset, hidden_update, hidden_new = _three_gates(of_hidden)
        new = ops.tanh(input_new + ops.sigmoid(input_reset + hidden_reset) * hidden_new)
        return new + ops.sigmoid(input_update + hidden_update) * (hx - new)


_ROUTERS: dict[Any, Any] = {
    nn.RNNCell: RoutedRNNCell,
    nn.LSTMCell: RoutedLSTMCell,
    nn.GRUCell: RoutedGRUCell,
}


@register_layer(*_ROUTERS)
def describe_recurrent_cell(name: str, cell: Any) -> tuple[Layer, ...] | str:
    """Describe an ``nn.RNNCell``, ``nn.GRUCell`` or ``nn.LSTMCell``.

    Args:
        name: the cell's name in the network.
        cell: the cell.

    Returns:
        Two dense layers, or the reason why they can't be preconditioned: an overridden ``construct``.
    """
    base = next(cls for cls in _ROUTERS if isinstance(cell, cls))
    if overrides_construct(cell, base):
        return f"it overrides the construct of {base.__name__}"
    return tuple(
        Layer(
            name=f"{name}.{part}",
            kind="dense",
            cell=cell,
            weight=getattr(cell, f"weight_{part}"),
            bias=getattr(cell, f"bias_{part}"),
            operators=DenseOperators(bias=cell.bias_ih is not None),
            router=_ROUTERS[base],
            tap_name=tap_name,
        )
        for part, tap_name in (("ih", "input_tap"), ("hh", "hidden_tap"))
    )


@register_layer(nn.RNN, nn.GRU, nn.LSTM)
def describe_recurrent_layer(name: str, cell: Any) -> str:
    """Describe an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``.

    Args:
        name: the cell's name in the network.
        cell: the cell.

    Returns:
        The reason why it can't be preconditioned.
    """
    kind = next(cls.__name__ for cls in (nn.RNN, nn.GRU, nn.LSTM) if isinstance(cell, cls))
    return f"{kind} hides the gradients of its gates (a loop over {kind}Cell is preconditioned)"
