"""The emulator fails where a GPU would: kernels with a bug are caught, with and without reports of races.

The kernels as they are pass on the same libraries. Each bug is a change of the sources' text.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.kernels.cuda.test_eigenbasis_statistics import Statistics as EigenbasisStatistics
from tests.kernels.cuda.test_trace_restricted_statistics import Statistics
from tests.support.cuda_cases import run
from tests.support.cuda_commit import MeasureCase
from tests.support.cuda_emulator import Change, changed_library, emulated_library
from tests.support.cuda_statistics import LAYERS

# Schedules that are tried for a bug without reports of races. The rarer one shows in about one of five.
TRIES = 100


def measure(library: AotLibrary) -> None:
    """Measures gradients and compares with float64."""
    case = MeasureCase(np.random.default_rng(3), copies=4)
    case.check(run(library, case))


def stage(library: AotLibrary) -> None:
    """Stages a pass of a convolution and compares its record with float64."""
    case = Statistics(LAYERS["conv_groups"], np.random.default_rng(3))
    case.operator(library).run()
    case.check_record([case.layer.samples])


def stage_moments(library: AotLibrary) -> None:
    """Stages second moments in an eigenbasis: three stages that wait for one another."""
    case = EigenbasisStatistics(LAYERS["conv_groups"], np.random.default_rng(3))
    case.operator(library).run()
    case.check_moments()


class Bug(NamedTuple):
    """A bug, the sources that have it, and what runs them."""

    change: Change
    sources: list[str]
    run: Callable[[AotLibrary], None]


MEASURE = "cuda/operators/measure_gradients.cu"
CHECK = "cuda/statistics/capture_check.cu"
BUGS = {
    "a removed wait": Bug(
        Change(
            "cuda/scheduling/counters.h",
            "while (*static_cast<volatile unsigned*>(counter) < count) __nanosleep(64);",
            "static_cast<void>(counter), static_cast<void>(count);",
        ),
        [CHECK],
        stage,
    ),
    "data written after its flag": Bug(
        Change(
            MEASURE,
            """    if (threadIdx.x == 0) partials[block * kMeasured + i] = sum;
  }
  unsigned* arrivals = batch.common.arrivals + of.arrivals;
  const unsigned blocks = static_cast<unsigned>(of.blocks());
  if (count_block(arrivals) + 1 != blocks) return;
""",
            """    sums[i] = static_cast<float>(sum);
  }
  unsigned* arrivals = batch.common.arrivals + of.arrivals;
  const unsigned blocks = static_cast<unsigned>(of.blocks());
  const unsigned before = count_block(arrivals);
  for (int i = 0; i < kMeasured; ++i)
    if (threadIdx.x == 0) partials[block * kMeasured + i] = sums[i];
  if (before + 1 != blocks) return;
""",
        ),
        [MEASURE],
        measure,
    ),
    "every block writes the output": Bug(
        Change(MEASURE, "if (count_block(arrivals) + 1 != blocks) return;", "count_block(arrivals);"),
        [MEASURE],
        measure,
    ),
    "a removed fence": Bug(
        Change(
            "cuda/scheduling/counters.h",
            "    __threadfence();\n    before = atomicAdd(counter, 1u);",
            "    before = atomicAdd(counter, 1u);",
        ),
        [MEASURE],
        measure,
    ),
    "a wait for too many blocks": Bug(
        Change(
            "cuda/scheduling/phases.h",
            "static_cast<unsigned>(blocks[phase])",
            "static_cast<unsigned>(blocks[phase] + 1)",
        ),
        [CHECK],
        stage,
    ),
}
# The message of the emulator, where the bug is not a wrong value.
DEADLOCK = "all resident blocks wait, and none of them can end the wait"


@pytest.fixture(scope="session")
def races_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a library that reports races, with a few operators."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    operators = ("measure_gradients", "trace_restricted_statistics", "eigenbasis_statistics")
    return emulated_library(tmp_path_factory.mktemp("races"), operators, races=True)


def changed(name: str, built: Path, folder: Path, races: bool = False) -> Path:
    """The path of a library with a bug."""
    return changed_library(built, folder, [BUGS[name].change], BUGS[name].sources, races)


@pytest.mark.parametrize("name", ["a removed wait", "data written after its flag"])
def test_a_race_gives_wrong_values(
    emulated_path: Path, attributes_path: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = AotLibrary(changed(name, emulated_path, tmp_path), attributes_path)
    for seed in range(TRIES):
        monkeypatch.setenv("EMULATOR_SEED", str(seed))
        try:
            BUGS[name].run(library)
        except AssertionError:
            return
    pytest.fail("not caught")


def test_a_deadlock_ends_with_an_error(emulated_path: Path, attributes_path: Path, tmp_path: Path) -> None:
    name = "a wait for too many blocks"
    library = AotLibrary(changed(name, emulated_path, tmp_path), attributes_path)
    with pytest.raises(AotError, match=f"TraceRestrictedStatistics: emulator: {DEADLOCK}"):
        BUGS[name].run(library)


@pytest.mark.parametrize(
    "name",
    ["a removed wait", "data written after its flag", "every block writes the output", "a removed fence"],
)
def test_races_are_reported(races_path: Path, attributes_path: Path, tmp_path: Path, name: str) -> None:
    library = AotLibrary(changed(name, races_path, tmp_path, races=True), attributes_path)
    with pytest.raises(AotError, match="emulator: a race in global memory: "):
        BUGS[name].run(library)


@pytest.mark.parametrize("seed", range(3))
def test_the_kernels_have_no_races(
    races_path: Path, attributes_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMULATOR_SEED", str(seed))
    library = AotLibrary(races_path, attributes_path)
    for run_kernels in (measure, stage, stage_moments):
        run_kernels(library)
