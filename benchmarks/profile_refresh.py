"""Profiles a K-FAC step that refreshes statistics and inverses, one row per operator.

    python benchmarks/profile_refresh.py [--method KFAC] [--batch-size 128] [--output FILE]

ResNet-20 in graph mode on synthetic images, with a full refresh at every step, seen by MindSpore's profiler:
milliseconds per step of each operator, grouped into the network's passes, the layers' statistics and the
optimizer. With MS_KFAC_NATIVE=0 the operators of the fallbacks appear one by one.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import nn  # noqa: E402

import ms_kfac  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from model_zoo.common.networks import create_network  # noqa: E402

STEPS = 5


def place_of(row: dict[str, str]) -> str:
    """The part of the step that an operator belongs to, from its name in the graph."""
    name = row["full_op_name"]
    if row["op_type"] == "Custom":
        # The compiler keeps the scope of a tap's layer, but not that of the optimizer.
        return "optimizer" if name.startswith("Default/Custom") else "statistics"
    if "/optimizer-" not in name:
        return "network"
    return "statistics" if "/statistics-" in name else "optimizer"


def operator_of(row: dict[str, str]) -> str:
    """The type of an operator; for a native kernel, also whether it serves one layer or all."""
    if row["op_type"] != "Custom":
        return row["op_type"]
    return "native kernel of all layers" if place_of(row) == "optimizer" else "native kernel of a layer"


def profile(method: str, batch_size: int) -> list[dict[str, Any]]:
    """Profiles some steps.

    Args:
        method: class name of the optimizer.
        batch_size: images per batch.

    Returns:
        Rows with place, operator, calls and milliseconds per step, the longest first.
    """
    ms.set_seed(1)
    rng = np.random.default_rng(1)
    network = create_network("resnet", depth=20)
    optimizer = getattr(ms_kfac, method)(network, 0.01, damping=0.1, factor_interval=1, inverse_interval=1)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
    step.set_train()
    images = ms.Tensor(rng.standard_normal((batch_size, 3, 32, 32), dtype=np.float32))
    labels = ms.Tensor(rng.integers(0, 10, batch_size).astype(np.int32))
    step(images, labels).asnumpy()
    with tempfile.TemporaryDirectory() as folder:
        profiler = ms.profiler.Profiler(output_path=folder, start_profile=True)
        for _ in range(STEPS):
            step(images, labels).asnumpy()
        profiler.analyse()
        (details,) = Path(folder).glob("**/cpu_op_detail_info_*.csv")
        with details.open() as file:
            table = list(csv.DictReader(file))
    milliseconds: dict[tuple[str, str], float] = defaultdict(float)
    calls: dict[tuple[str, str], int] = defaultdict(int)
    for row in table:
        key = place_of(row), operator_of(row)
        milliseconds[key] += float(row["op_total_time(ms)"]) / STEPS
        calls[key] += int(row["op_occurrences"]) // STEPS
    rows = [
        {"place": place, "operator": operator, "calls": calls[place, operator], "ms": spent}
        for (place, operator), spent in milliseconds.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def main() -> None:
    """Profiles and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="KFAC", help="class name of the optimizer")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rows", type=int, default=25, help="rows to print")
    parser.add_argument("--output", type=Path, help="write all rows as JSON")
    arguments = parser.parse_args()
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    rows = profile(arguments.method, arguments.batch_size)
    total = sum(row["ms"] for row in rows)
    print(
        f"{arguments.method}, ResNet-20, batch {arguments.batch_size}: {total:.1f} ms of operators per step"
    )
    for place in ("network", "statistics", "optimizer"):
        print(f"  {place}: {sum(row['ms'] for row in rows if row['place'] == place):.1f} ms")
    print(f"{'place':12}{'operator':34}{'calls':>7}{'ms':>10}{'share':>8}")
    for row in rows[: arguments.rows]:
        share = f"{row['ms'] / total:.1%}"
        print(f"{row['place']:12}{row['operator']:34}{row['calls']:7}{row['ms']:10.2f}{share:>8}")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        record = {**describe_run(), "rows": rows}
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
