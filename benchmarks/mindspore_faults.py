"""What MindSpore does wrong, each as a short program without ms_kfac.

    python -m benchmarks.mindspore_faults

Each function is a program of its own. It returns what MindSpore does and what would be right, or raises what
MindSpore raises. The package works around these faults or refuses what leads to them (docs/mindspore.md). The
command prints a table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

Program = Callable[[], tuple[object, object]]
PROGRAMS: dict[str, Program] = {}
# Characters of an error.
_SHOWN = 90


def program(function: Program) -> Program:
    """Adds a function to PROGRAMS by its name."""
    PROGRAMS[function.__name__] = function
    return function


def _ones(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32))


def _in_graph_mode() -> None:
    ms.set_context(mode=ms.GRAPH_MODE)


@program
def momentum_ignores_nesterov() -> tuple[object, object]:
    """nn.Momentum(use_nesterov=True) takes the step without it."""
    weight = Parameter(_ones(1), name="w")
    optimizer = nn.Momentum([weight], 1.0, 0.5, use_nesterov=True)
    optimizer((_ones(1),))
    # v = g, w = w - (g + 0.5 v).
    return float(weight.asnumpy()[0]), -0.5


@program
def selu_has_a_wrong_gradient() -> tuple[object, object]:
    """The gradient of nn.SeLU at negative inputs."""
    found = ms.grad(nn.SeLU())(Tensor(np.array([-2.0], np.float32)))
    return round(float(found.asnumpy()[0]), 3), round(1.0507 * 1.67326 * np.exp(-2.0), 3)


@program
def eigh_of_a_batch_has_wrong_shapes() -> tuple[object, object]:
    """Eigh of two 3 x 3 matrices."""
    matrices = Tensor(np.stack([np.eye(3), 2 * np.eye(3)]).astype(np.float32))
    values, vectors = ops.operations.linalg_ops.Eigh()(matrices)
    return (values.shape, vectors.shape), ((2, 3), (2, 3, 3))


@program
def the_gradient_of_a_strided_slice_fails() -> tuple[object, object]:
    """In PyNative mode."""
    return ms.grad(lambda x: x[:, :, ::2, ::2].sum())(_ones(2, 3, 8, 8)).asnumpy().sum(), 96.0


@program
def set_data_leaves_compiled_functions_behind() -> tuple[object, object]:
    """In PyNative mode a compiled function goes on with the old value."""
    weight = Parameter(_ones(1), name="w")

    class Read(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        @ms.jit
        def construct(self) -> Tensor:
            return self.weight + 0.0

    read = Read()
    read()
    weight.set_data(Tensor(np.array([5.0], np.float32)))
    return float(read().asnumpy()[0]), 5.0


@program
def a_step_after_an_optimizer_was_compiled_alone_is_left_out() -> tuple[object, object]:
    """A method of an optimizer is compiled under ms.jit, then a training step is."""
    _in_graph_mode()

    class Plain(nn.Optimizer):
        def __init__(self, parameters: object) -> None:
            super().__init__(0.5, parameters)

        @ms.jit
        def doubled(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(gradient * 2 for gradient in gradients)

        def construct(self, gradients: tuple[Tensor, ...]) -> bool:
            self.parameters[0].assign_sub(gradients[0])
            return True

    network = nn.Dense(1, 1, weight_init="zeros", has_bias=False)
    optimizer = Plain(network.trainable_params())
    optimizer.doubled((_ones(1, 1),))
    nn.TrainOneStepCell(network, optimizer)(_ones(1, 1))
    return float(network.weight.asnumpy()[0, 0]), -1.0


@program
def a_forward_pass_after_the_step_is_a_cycle() -> tuple[object, object]:
    """A compiled function that trains and then evaluates."""
    _in_graph_mode()
    network = nn.Dense(1, 1)

    class Both(nn.Cell):
        def __init__(self) -> None:
            super().__init__(auto_prefix=False)
            self.network = network
            self.optimizer = nn.Momentum(network.trainable_params(), 0.1, 0.9)
            self.grad = ops.value_and_grad(network, None, network.trainable_params())

        def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
            loss, gradients = self.grad(x)
            self.optimizer(gradients)
            return loss, self.network(x)

    Both()(_ones(1, 1))
    return "runs", "runs"


@program
def two_momentums_are_one_name() -> tuple[object, object]:
    """Two optimizers in one compiled function."""
    one = nn.Momentum([Parameter(_ones(1), name="a")], 0.1, 0.9)
    other = nn.Momentum([Parameter(_ones(1), name="b")], 0.1, 0.9)

    @ms.jit
    def both(x: Tensor) -> Tensor:
        one((x,))
        other((x,))
        return x

    both(_ones(1))
    return "runs", "runs"


@program
def long_loops_are_nested_too_deeply() -> tuple[object, object]:
    """A compiled loop of 1,100 calls with a branch each."""
    _in_graph_mode()

    class Loop(nn.Cell):
        def construct(self, x: Tensor) -> Tensor:
            for _ in range(1100):
                if x.sum() > 0:
                    x = x + 1.0
            return x

    return float(Loop()(_ones(1)).asnumpy()[0]), 1101.0


@program
def uniform_real_ignores_the_seed() -> tuple[object, object]:
    """Whether two draws are equal, each after ms.set_seed(7)."""
    drawn = []
    for _ in range(2):
        ms.set_seed(7)
        drawn.append(ops.UniformReal()((2,)).asnumpy().tolist())
    return drawn[0] == drawn[1], True


@program
def custom_gradients_take_no_starred_inputs() -> tuple[object, object]:
    """A Cell with a bprop and *inputs."""

    class Sum(nn.Cell):
        def construct(self, *inputs: Tensor) -> Tensor:
            return inputs[0] + inputs[1]

        def bprop(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
            return arguments[-1], arguments[-1]

    _in_graph_mode()
    found = ms.grad(Sum(), grad_position=(0, 1))(_ones(1), _ones(1))
    return [float(part.asnumpy()[0]) for part in found], [1.0, 1.0]


def run(name: str) -> tuple[str, str]:
    """Runs a program in PyNative mode, unless it chooses graph mode.

    Args:
        name: a key of PROGRAMS.

    Returns:
        What MindSpore does, or its error, and what would be right, if the program came so far.
    """
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        found, right = PROGRAMS[name]()
    except RuntimeError as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:_SHOWN]}", "no error"
    return str(found), str(right)


def main() -> int:
    """Prints the table; the exit status is 0."""
    print(f"MindSpore {ms.__version__}\n")
    print("| program | what it does | MindSpore | right |\n|---|---|---|---|")
    for name, made in PROGRAMS.items():
        found, right = run(name)
        print(f"| {name} | {(made.__doc__ or '').rstrip('.')} | {found} | {right} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
