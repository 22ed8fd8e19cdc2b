"""Both execution modes for every test that asks for `mode`, on the CPU backend; the choice of `--quick`."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

# On AVX-512 machines oneDNN 3 picks a reference convolution for some of MindSpore's layouts, tens of times
# slower than its AVX2 kernels. It reads this variable once, before its first operator runs.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import mindspore as ms
import numpy as np
import pytest
from hypothesis import settings

from benchmarks.support.aot import AotLibrary, compile_attributes
from ms_kfac.kernels.library import library

# The same examples in every run, so that a red run names a change and not a draw. The other profile looks for
# new ones: HYPOTHESIS_PROFILE=explore.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

ms.set_device("CPU")

# A shell's background jobs ignore Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Fixtures that compile a library or train with several processes.
SLOW_FIXTURES = {"emulated_path", "races_path", "build", "runs"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="one case of every fourth test, and none marked slow"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--quick`, one case of every fourth test: the first of a file's first, the second of its fifth."""
    if not config.getoption("--quick"):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    turns: dict[str, int] = {}
    chosen = set()
    for name, own in cases.items():
        file = name.partition("::")[0]
        if own[0].get_closest_marker("slow") is not None or SLOW_FIXTURES.intersection(own[0].fixturenames):
            continue
        turn = turns[file] = turns.get(file, -1) + 1
        if turn % 4 == 0:
            chosen.add(own[turn // 4 % len(own)])
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


def pytest_collection_finish() -> None:
    """MindSpore collects garbage before it compiles a graph: let it skip what stays until the end.

    Modules and collected tests are some 350,000 objects, which take 0.2 s to go through.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs the test once in each execution mode, and leaves MindSpore in the one it starts in."""
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture(scope="session")
def aot(tmp_path_factory: pytest.TempPathFactory) -> AotLibrary:
    """The CPU's operators, called without MindSpore."""
    return AotLibrary(library("CPU").path, compile_attributes(tmp_path_factory.mktemp("attributes")))


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20151)
