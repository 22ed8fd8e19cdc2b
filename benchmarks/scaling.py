r"""Cost model of K-FAC per rank for ResNet-50: bytes, operations, memory.

    python -m benchmarks.scaling              prints the tables of docs/distributed.md
    python -m benchmarks.scaling --update     writes them there

No network is built and no rank started. The bytes come from `ms_kfac.parallel.plan`; everything else is
computed from the dimensions a and g of each layer's factors. docs/distributed.md has the formulas and their
sources.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.resnet50_layers import Layer, resnet50_layers
from ms_kfac.parallel import Distribution, LayerSize, Traffic, plan

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "distributed.md"
RANKS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Steps between refreshes: every step (SP-NGD with fresh statistics), (10:100), and THOR's interval.
INTERVALS = (1, 100, 834)
BYTES = 4
BATCH = 32


def size_of(layer: Layer) -> LayerSize:
    """The factor dimensions of a layer."""
    return LayerSize(layer.input_dimension, layer.output_dimension, bias=layer.dense)


@dataclass(frozen=True)
class Costs:
    """The work and the traffic of one rank.

    Attributes:
        ranks: the number of ranks R.
        gradients: bytes sent per step by the gradient all-reduce, which training needs without K-FAC too.
        inverses: the exchanges if owners send inverses.
        updates: the exchanges if owners send preconditioned gradients.
        refresh: operations per refresh of the busiest rank.
        balance: mean operations per refresh over those of the busiest rank.
        precondition_all: operations of preconditioning all layers.
        precondition_own: operations of preconditioning the layers of the busiest rank.
        inverses_own: bytes of the inverses of the rank that owns most.
        least_refresh: mean bytes per refresh with collectives for parts of unequal length.
        least_updates: the same for preconditioned gradients, per step.
    """

    ranks: int
    gradients: float
    inverses: Traffic
    updates: Traffic
    refresh: float
    balance: float
    precondition_all: float
    precondition_own: float
    inverses_own: float
    least_refresh: float
    least_updates: float


def preconditioning(size: LayerSize) -> float:
    """Operations of G⁻¹ dW A⁻¹: two products of matrices."""
    return 2.0 * size.dim_G * size.dim_A * (size.dim_A + size.dim_G)


def squares(size: LayerSize) -> float:
    """Bytes of both factors as stored, or of both inverses."""
    return float(BYTES * (size.dim_A**2 + size.dim_G**2))


def _by_rank(values: Sequence[float], owners: Sequence[int], ranks: int) -> list[float]:
    sums = [0.0] * ranks
    for value, owner in zip(values, owners):
        sums[owner] += value
    return sums


def costs(sizes: Sequence[LayerSize], ranks: int, collective: str = "auto") -> Costs:
    """Computes the costs for a number of ranks.

    Args:
        sizes: the layers.
        ranks: R.
        collective: the collective of the statistics; "auto" as on a GPU.

    Returns:
        The costs.
    """
    inverses = plan(sizes, ranks, Distribution(exchange="inverses", collective=collective))
    updates = plan(sizes, ranks, Distribution(exchange="gradients", collective=collective))
    work = _by_rank([size.work() for size in sizes], inverses.owners, ranks)
    products = [preconditioning(size) for size in sizes]
    # The fraction of a vector that a rank sends in a ring scatter or gather.
    ring = (ranks - 1) / ranks
    weights = BYTES * sum(size.weights() for size in sizes)
    return Costs(
        ranks=ranks,
        gradients=2.0 * ring * weights,
        inverses=inverses,
        updates=updates,
        refresh=max(work),
        balance=sum(work) / ranks / max(work),
        precondition_all=sum(products),
        precondition_own=max(_by_rank(products, updates.owners, ranks)),
        inverses_own=max(_by_rank([squares(size) for size in sizes], inverses.owners, ranks)),
        least_refresh=2.0 * ring * BYTES * sum(size.triangles() for size in sizes),
        least_updates=ring * weights,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def traffic_table(sizes: Sequence[LayerSize]) -> str:
    """Megabytes that each rank sends."""
    head = ["R", "average of the gradients, each step", "refresh, I", "refresh, U", "each step, U"]
    head += ["refresh, I, least", "each step, U, least"]
    rows = []
    for ranks in RANKS:
        found = costs(sizes, ranks)
        values = [
            found.gradients,
            found.inverses.sent_at_refresh(),
            found.updates.sent_at_refresh(),
            found.updates.sent_each_step(),
            found.least_refresh,
            found.least_updates,
        ]
        rows.append([str(ranks), *(f"{value / 1e6:,.0f}" for value in values)])
    return _table(head, rows)


def average_table(sizes: Sequence[LayerSize]) -> str:
    """Mean megabytes per step."""
    head = ["R", "average of the gradients"]
    head += [f"{exchange}, every {n}" for exchange in ("I", "U") for n in INTERVALS]
    rows = []
    for ranks in RANKS:
        found = costs(sizes, ranks)
        values = [
            traffic.sent_on_average(min(n, 10), n)
            for traffic in (found.inverses, found.updates)
            for n in INTERVALS
        ]
        rows.append([str(ranks), *(f"{value / 1e6:,.1f}" for value in (found.gradients, *values))])
    return _table(head, rows)


def work_table(sizes: Sequence[LayerSize]) -> str:
    """Operations and memory per rank."""
    head = ["R", "refresh, Gop", "balance", "times less", "preconditioning, I, Gop"]
    head += ["preconditioning, U, Gop", "inverses in use, I, MB", "inverses in use, U, MB"]
    alone = costs(sizes, 1)
    rows = []
    for ranks in (1, *RANKS):
        found = costs(sizes, ranks)
        rows.append(
            [
                str(ranks),
                f"{found.refresh / 1e9:,.0f}",
                f"{found.balance:.2f}",
                f"{alone.refresh / found.refresh:.1f}",
                f"{found.precondition_all / 1e9:,.0f}",
                f"{found.precondition_own / 1e9:,.1f}",
                f"{alone.inverses_own / 1e6:,.0f}",
                f"{found.inverses_own / 1e6:,.0f}",
            ]
        )
    return _table(head, rows)


def summary(layers: Sequence[Layer]) -> str:
    """The quantities that do not depend on the number of ranks."""
    sizes = [size_of(layer) for layer in layers]
    products = sum(layer.locations * size.weights() for layer, size in zip(layers, sizes))
    taken = sum(
        layer.locations * (size.dim_A * (size.dim_A + 1) + size.dim_G * (size.dim_G + 1))
        for layer, size in zip(layers, sizes)
    )
    values = [
        ("layers", f"{len(sizes)}"),
        ("weights in them", f"{sum(size.weights() for size in sizes):,}"),
        ("numbers in the triangles of their factors", f"{sum(size.triangles() for size in sizes):,}"),
        ("factors as they are kept, and as much for inverses", f"{sum(map(squares, sizes)) / 1e6:,.0f} MB"),
        (f"forward and backward, {BATCH} images", f"{6 * BATCH * products / 1e9:,.0f} Gop"),
        (f"statistics of {BATCH} images, expand", f"{BATCH * taken / 1e9:,.0f} Gop"),
        ("refresh of all layers", f"{sum(size.work() for size in sizes) / 1e9:,.0f} Gop"),
    ]
    return "\n".join(["| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in values)])


def tables() -> dict[str, str]:
    """The tables of docs/distributed.md, by placeholder name."""
    layers = resnet50_layers()
    sizes = [size_of(layer) for layer in layers]
    return {
        "summary": summary(layers),
        "traffic": traffic_table(sizes),
        "average": average_table(sizes),
        "work": work_table(sizes),
    }


def updated(text: str) -> str:
    """Replaces the tables in a document.

    Args:
        text: the document; a placeholder is between the lines `<!-- scaling: NAME -->` and `<!-- end -->`.

    Returns:
        The updated document.
    """
    for name, content in tables().items():
        begin = f"<!-- scaling: {name} -->\n"
        before, _, rest = text.partition(begin)
        _, end, after = rest.partition("<!-- end -->")
        text = f"{before}{begin}{content}\n{end}{after}"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the tables to docs/distributed.md")
    if parser.parse_args(arguments).update:
        DOCUMENT.write_text(updated(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(f"{name}\n\n{content}" for name, content in tables().items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
