"""The libraries by the names of the rows, each with the module that takes its steps and its distribution."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.problems import KINDS, Problem


@dataclass(frozen=True)
class Library:
    """A row of the table.

    Attributes:
        module: the module of this folder with its ``create_step``.
        package: what its version is looked up by.
        kinds: the kinds of steps that it has.
    """

    module: str
    package: str
    kinds: tuple[str, ...] = KINDS


LIBRARIES = {
    "ms_kfac kfac": Library("ms_kfac_steps", "ms_kfac"),
    "ms_kfac ekfac": Library("ms_kfac_steps", "ms_kfac"),
    "ms_kfac skfac": Library("ms_kfac_steps", "ms_kfac"),
    "ms_kfac smkfac": Library("ms_kfac_steps", "ms_kfac"),
    "kfac-jax": Library("kfac_jax_steps", "kfac-jax"),
    "kfac-jax empirical": Library("kfac_jax_steps", "kfac-jax"),
    "kfac-pytorch eigen": Library("torch_steps", "kfac-pytorch"),
    "kfac-pytorch inverse": Library("torch_steps", "kfac-pytorch"),
    "asdfghjkl": Library("torch_steps", "asdfghjkl"),
    # SINGD has no inverses, SOAP no statistics that could be left out.
    "singd": Library("torch_steps", "singd", ("sgd", "kept", "everything")),
    "soap": Library("torch_steps", "pytorch-optimizer", ("sgd", "kept", "everything")),
}


def create_step(name: str, problem: Problem, kind: str) -> Callable[[], Any]:
    """A training step of a library.

    Args:
        name: a key of LIBRARIES.
        problem: the network and the batch.
        kind: one of the library's kinds.

    Returns:
        A function that takes one step and waits for it.
    """
    module = importlib.import_module(f"benchmarks.peers.{LIBRARIES[name].module}")
    return module.create_step(name, problem, kind)
