r"""Counter-based random numbers. The key and the counter are a Parameter, so a checkpoint contains them.

MindSpore's random operators keep their state inside a compiled graph, where it cannot be read or restored.
Here the i-th number of the c-th draw is

.. math::
    u = h(h(i \oplus h(c \oplus k)) \oplus h(c \oplus k \oplus k')), \qquad
    h(x) = s(m(m(x))), \quad m(x) = a \, s(x) \bmod 2^{32}, \quad s(x) = x \oplus \lfloor x / 2^{16} \rfloor

with a = 0x45d9f3b. h is a 32-bit hash: each bit of x flips each bit of h(x) with a probability of nearly one
half. The keys k and k' depend on the seed and on the device number.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

_MULTIPLIER = 0x45D9F3B
_BITS = 0xFFFFFFFF


def rng_state(name: str) -> Parameter:
    """Create the state of a generator: a key and a counter of 0.

    The key comes from ``mindspore.set_seed`` if it was called, otherwise from the operating system.

    Args:
        name: the Parameter's name.

    Returns:
        int32 of shape (2,).
    """
    key = np.random.SeedSequence(ms.get_seed()).generate_state(1)[0] >> 1
    return Parameter(Tensor(np.array([key, 0], np.int32)), name=name, requires_grad=False)


class StatelessRNG(nn.Cell):
    """Counter-based generator of uniform random numbers whose caller holds the state.

    In a ``bprop``, MindSpore 2.10 takes a Parameter as an input only.

    Args:
        stream: stream number, for example the device number. Different streams are independent. Default: 0.

    Inputs:
        - **state** (Parameter) - the result of :func:`rng_state`. Each call increments the counter by one.
        - **shape** (tuple[int]) - the output shape, static.

    Outputs:
        Tensor, float32 of that shape, strictly between 0 and 1: odd multiples of :math:`2^{-24}`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, stream: int = 0) -> None:
        super().__init__(auto_prefix=False)
        self.one_more = Tensor(np.array([0, 1], np.int32))
        first, second = np.random.SeedSequence([stream, 0]).generate_state(2)
        self.first, self.second = Tensor(int(first), ms.int64), Tensor(int(second), ms.int64)
        self.multiplier = Tensor(_MULTIPLIER, ms.int64)
        self.bits = Tensor(_BITS, ms.int64)
        self.sixteen, self.nine = Tensor(16, ms.int64), Tensor(9, ms.int64)
        self.assign_add = ops.AssignAdd()
        self.bitwise_xor = ops.BitwiseXor()
        self.bitwise_and = ops.BitwiseAnd()
        self.right_shift = ops.RightShift()
        self.cast = ops.Cast()

    def hashed(self, x: Tensor) -> Tensor:
        """Compute h(x) of int64 numbers below 2**32. The products stay below 2**63."""
        for _ in range(2):
            mixed = self.bitwise_xor(x, self.right_shift(x, self.sixteen))
            x = self.bitwise_and(mixed * self.multiplier, self.bits)
        return self.bitwise_xor(x, self.right_shift(x, self.sixteen))

    def construct(self, state: Parameter, shape: tuple[int, ...]) -> Tensor:
        size = 1
        for extent in shape:
            size = size * extent
        counted = self.cast(self.assign_add(state, self.one_more), ms.int64)
        key = self.hashed(self.bitwise_xor(counted[0], self.first))
        count = self.bitwise_xor(counted[1], key)
        inner = self.hashed(count)
        outer = self.hashed(self.bitwise_xor(count, self.second))
        numbers = self.hashed(self.bitwise_xor(ops.arange(size), inner))
        numbers = self.hashed(self.bitwise_xor(numbers, outer))
        # 23 bits plus one half are exact in float32.
        halves = self.cast(self.right_shift(numbers, self.nine), ms.float32) + 0.5
        return (halves * 2.0**-23).reshape(shape)


class CounterBasedRNG(nn.Cell):
    """Counter-based generator of uniform random numbers. Each call increments the counter by one.

    Args:
        state: the result of :func:`rng_state`. None creates a new state. Default: None.
        stream: stream number, for example the device number. Different streams are independent. Default: 0.

    Inputs:
        - **shape** (tuple[int]) - the output shape, static.

    Outputs:
        Tensor, as that of :class:`StatelessRNG`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, state: Parameter | None = None, stream: int = 0) -> None:
        super().__init__(auto_prefix=False)
        self.state = rng_state("draws") if state is None else state
        self.stateless = StatelessRNG(stream)

    def construct(self, shape: tuple[int, ...]) -> Tensor:
        return self.stateless(self.state, shape)
