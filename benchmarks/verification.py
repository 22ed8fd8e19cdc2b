"""What verification says of training loops and networks that go wrong, and of those that are legitimate.

Each case trains a small network for some steps with K-FAC. The table has what was told: warnings of the
optimizer, refused batches, and what each layer was found to be at the last commit. Wrong cases should be
told; legitimate ones should be silent.

    python -m benchmarks.verification
    python -m benchmarks.verification --mode pynative --only SAM
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore as ms
import numpy as np

from benchmarks.training_loops import RIGHT, WRONG, Step

STEPS = 4


@dataclass
class Told:
    """What a case came to.

    Attributes:
        warnings: of the optimizer, each once.
        refused: batches.
        states: of the layers, at the last commit.
        finite: whether all weights are numbers at the end.
    """

    warnings: list[str] = field(default_factory=list)
    refused: int = 0
    states: tuple[str, ...] = ()
    finite: bool = True


def run(case: Callable[[], tuple[Any, Step]]) -> Told:
    """Train a case for some steps, and collect what was told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ms.set_seed(1)
        np.random.seed(1)
        optimizer, step = case()
        for number in range(STEPS):
            step(number)
        finite = all(np.isfinite(p.asnumpy()).all() for p in optimizer.parameters)
    texts = [str(entry.message) for entry in caught]
    return Told(
        warnings=list(dict.fromkeys(text for text in texts if text.startswith(("KFAC", "reduction")))),
        refused=optimizer.refreshes()["refused"],
        states=tuple(checked.state for checked in optimizer.verification.checked),
        finite=finite,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("graph", "pynative"), default="graph")
    parser.add_argument("--only", help="cases whose name holds this")
    options = parser.parse_args(arguments)
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE if options.mode == "graph" else ms.PYNATIVE_MODE)
    failed = 0
    for title, cases in (("wrong", WRONG), ("legitimate", RIGHT)):
        print(f"\n{title} ({options.mode} mode)")
        for name, case in cases.items():
            if options.only and options.only not in name:
                continue
            told = run(case)
            silent = not told.warnings
            as_meant = silent == (title == "legitimate") and told.finite
            failed += not as_meant
            states = ", ".join(told.states)
            mark = "" if as_meant else "NOT AS MEANT "
            print(f"- {mark}{name}: {states}; refused {told.refused}")
            for text in told.warnings:
                print(f"    {text}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
