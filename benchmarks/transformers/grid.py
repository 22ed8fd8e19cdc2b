"""The tasks, the methods and their grids. All grids have the same size."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

# Tasks: the recipes without the optimizer's name, and overrides for the benchmark.
TASKS = {
    "gpt_stdlib": ("model_zoo/gpt/gpt_stdlib", ("data.evaluation_windows=1024",)),
    "vit_digits": ("model_zoo/vit/vit_digits", ()),
    "vit_cifar10": ("model_zoo/vit/vit_cifar10", ()),
}

RATE, DAMPING = "optimizer.learning_rate", "optimizer.damping"


@dataclass(frozen=True)
class Method:
    """A method and its grid.

    Attributes:
        recipe: the last word of its recipes.
        rates: the learning rates.
        second: the second key of the grid.
        values: the values of that key.
        settings: overrides of the recipe.
    """

    recipe: str
    rates: tuple[float, ...]
    second: str
    values: tuple[float, ...]
    settings: tuple[str, ...] = ()

    def points(self) -> list[str]:
        """The points of the grid, each as overrides separated by spaces."""
        pairs = itertools.product(self.rates, self.values)
        return [f"{RATE}={rate:g} {self.second}={value:g}" for rate, value in pairs]

    def edges(self, point: str) -> list[str]:
        """The keys whose value at a point is the first or the last of the grid."""
        rate, value = (float(part.partition("=")[2]) for part in point.split())
        found = [RATE] if rate in (self.rates[0], self.rates[-1]) else []
        return found + ([self.second] if value in (self.values[0], self.values[-1]) else [])


def _second_order(recipe: str, *settings: str) -> Method:
    # The loss of a text is a mean over T positions, which makes K-FAC's curvature about T times smaller than
    # that of one position. Small dampings are in the grid for that reason.
    return Method(recipe, (0.003, 0.01, 0.03, 0.1), DAMPING, (1e-4, 1e-3, 1e-2), settings)


METHODS = {
    "adamw": Method("adamw", (0.0005, 0.001, 0.002, 0.004), "optimizer.beta2", (0.95, 0.99, 0.999)),
    "sgdm": Method("sgdm", (0.03, 0.1, 0.3, 1.0), "optimizer.momentum", (0.8, 0.9, 0.95)),
    "kfac": _second_order("kfac"),
    "kfac-momentum": _second_order("kfac", "optimizer.first_order={name: momentum}"),
    "kfac-reduce": _second_order("kfac", "optimizer.sharing=reduce"),
    "kfac-sampled": _second_order("kfac", "optimizer.fisher=sampled"),
    "kfac-unitwise": _second_order("kfac", "optimizer.normalization=unit_wise"),
    "ekfac": _second_order("ekfac"),
    "ekfac-reduce": _second_order("ekfac", "optimizer.sharing=reduce"),
    "skfac": _second_order("skfac"),
    "skfac-reduce": _second_order("skfac", "optimizer.sharing=reduce"),
}
