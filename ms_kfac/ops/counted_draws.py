r"""Random numbers that follow from a key and a count, both in a Parameter, so that a checkpoint carries them.

MindSpore's random operators keep their state within a compiled graph, where nothing can read or restore it.
Here the i-th number of the c-th draw is

.. math::
    u = h(h(i \oplus h(c \oplus k)) \oplus h(c \oplus k \oplus k')), \qquad
    h(x) = s(m(m(x))), \quad m(x) = a \, s(x) \bmod 2^{32}, \quad s(x) = x \oplus \lfloor x / 2^{16} \rfloor

with a = 0x45d9f3b, a hash of 32 bits in which each bit of x changes each bit of the result with a probability
of nearly one half. The keys k and k' come from the seed and from the device's number.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

_MULTIPLIER = 0x45D9F3B
_BITS = 0xFFFFFFFF


def draw_state(name: str) -> Parameter:
    """The state of draws: a key, from ``mindspore.set_seed`` where it was called, and a count of 0.

    Args:
        name: the Parameter's name.

    Returns:
        int32 of shape (2,).
    """
    # None draws the key from the operating system.
    key = np.random.SeedSequence(ms.get_seed()).generate_state(1)[0] >> 1
    return Parameter(Tensor(np.array([key, 0], np.int32)), name=name, requires_grad=False)


class CountedDraws(nn.Cell):
    """Uniform random numbers; each call counts the state up by one.

    Args:
        state: what :func:`draw_state` returned; None for one of the Cell's own. Default: None.
        stream: numbers of another stream are independent: a number for each device. Default: 0.

    Inputs:
        - **shape** (tuple[int]) - the shape, static.

    Outputs:
        Tensor, float32 of that shape, strictly between 0 and 1: odd multiples of :math:`2^{-24}`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators; not run on a GPU yet).
    """

    def __init__(self, state: Parameter | None = None, stream: int = 0) -> None:
        super().__init__(auto_prefix=False)
        self.state = draw_state("draws") if state is None else state
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
        """h(x) of int64 numbers below 2**32; products stay below 2**63."""
        for _ in range(2):
            mixed = self.bitwise_xor(x, self.right_shift(x, self.sixteen))
            x = self.bitwise_and(mixed * self.multiplier, self.bits)
        return self.bitwise_xor(x, self.right_shift(x, self.sixteen))

    def construct(self, shape: tuple[int, ...]) -> Tensor:
        size = 1
        for extent in shape:
            size = size * extent
        state = self.cast(self.assign_add(self.state, self.one_more), ms.int64)
        key = self.hashed(self.bitwise_xor(state[0], self.first))
        count = self.bitwise_xor(state[1], key)
        inner = self.hashed(count)
        outer = self.hashed(self.bitwise_xor(count, self.second))
        numbers = self.hashed(self.bitwise_xor(ops.arange(size), inner))
        numbers = self.hashed(self.bitwise_xor(numbers, outer))
        # 23 bits and a half are a float32 exactly.
        halves = self.cast(self.right_shift(numbers, self.nine), ms.float32) + 0.5
        return (halves * 2.0**-23).reshape(shape)
