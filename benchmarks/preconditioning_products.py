"""Times only the products of preconditioning, G^-1 dW A^-1, for ResNet-20 as one graph.

python benchmarks/preconditioning_products.py
"""

from __future__ import annotations

import time

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

# (d_out, d_in) of ResNet-20's convolutions and, with its bias, its dense layer.
LAYERS = (
    [(16, 27)] + [(16, 144)] * 6 + [(32, 144)] + [(32, 288)] * 5 + [(64, 288)] + [(64, 576)] * 5 + [(10, 65)]
)


def matrices(name: str, shapes: list[tuple[int, int]]) -> ParameterTuple:
    """Random matrices of the given shapes."""
    rng = np.random.default_rng(0)
    return ParameterTuple(
        [
            Parameter(Tensor(rng.standard_normal(shape, dtype=np.float32)), name=f"{name}{index}")
            for index, shape in enumerate(shapes)
        ]
    )


class Products(nn.Cell):
    """The products of all layers in one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul()
        self.G_inverses = matrices("G", [(o, o) for o, _ in LAYERS])
        self.A_inverses = matrices("A", [(d, d) for _, d in LAYERS])
        self.gradients = matrices("W", LAYERS)

    def construct(self) -> tuple[Tensor, ...]:
        """U of every layer."""
        products = ()
        for G, dW, A in zip(self.G_inverses, self.gradients, self.A_inverses):
            products = (*products, self.matmul(self.matmul(G, dW), A))
        return products


def main() -> None:
    """Times the graph."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    products = Products()
    products()
    times = []
    for _ in range(60):
        start = time.perf_counter()
        for product in products():
            product.asnumpy()
        times.append((time.perf_counter() - start) * 1e3)
    low, median, high = np.percentile(times, [25, 50, 75])
    operations = sum(o * o * d + o * d * d for o, d in LAYERS) / 1e6
    print(f"{operations:.0f} million multiply-adds: {median:.2f} ms (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
