"""Reports what verification finds in wrong and in legitimate training loops and networks.

Each case trains a small network for some steps with K-FAC. The table has the optimizer's warnings, the
refused batches, and the state of each layer at the last commit. Wrong cases should be reported; legitimate
ones should be silent.

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
    """The result of a case.

    Attributes:
        warnings: the distinct warnings of the optimizer.
        refused: number of refused batches.
        states: states of the layers at the last commit.
        finite: whether all weights are finite at the end.
    """

    warnings: list[str] = field(default_factory=list)
    refused: int = 0
    states: tuple[str, ...] = ()
    finite: bool = True


def run(case: Callable[[], tuple[Any, Step]]) -> Told:
    """Trains a case for some steps and collects the reports."""
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
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("graph", "pynative"), default="graph")
    parser.add_argument("--only", help="run only cases whose name contains this")
    options = parser.parse_args(arguments)
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE if options.mode == "graph" else ms.PYNATIVE_MODE)
    failed = 0
    for title, cases in (("wrong", WRONG), ("legitimate", RIGHT)):
        print(f"\n{title} ({options.mode} mode)")
        for name, case in cases.items():
            if options.only and options.only not in name:
                continue
            outcome = run(case)
            silent = not outcome.warnings
            as_expected = silent == (title == "legitimate") and outcome.finite
            failed += not as_expected
            states = ", ".join(outcome.states)
            mark = "" if as_expected else "NOT AS MEANT "
            print(f"- {mark}{name}: {states}; refused {outcome.refused}")
            for text in outcome.warnings:
                print(f"    {text}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
