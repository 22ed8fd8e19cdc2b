"""A whole optimizer in float64 over Kronecker, unit-wise and embedding blocks, refreshed at every step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.oracle import network
from tests.oracle.kfac import MovingAverage
from tests.oracle.momentum import KL_CLIP, Momentum, trust_region
from tests.oracle.preconditioner import kronecker_solve, precondition
from tests.oracle.unit_wise import unit_wise_solve


@dataclass
class MixedReference:
    """One step a call; the modules of `tests.oracle.network` say what kind of block a layer has."""

    modules: Sequence[network.Module]
    rule: Momentum
    damping: float
    factor_decay: float = 0.95
    kl_clip: float | None = KL_CLIP
    # Layers whose weights have diagonal blocks, of the square of a batch's gradient.
    squares: Collection[str] = ()
    # Layers without a block.
    first_order: Collection[str] = ()
    averages: dict[str, list[MovingAverage]] = field(default_factory=dict)

    def step(
        self, weights: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray, lr: float
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The loss before the step, and the weights after it."""
        loss, gradients, factors = network.differentiate(self.modules, weights, x, labels)
        directions = dict(gradients)
        for module in self.modules:
            if not module.name or module.name in self.first_order:
                continue
            own = [name for name in gradients if name.rpartition(".")[0] == module.name]
            if module.name in self.squares:
                batch = tuple(len(x) * gradients[name] ** 2 for name in own)
            else:
                batch = factors[module.name] if module.name in factors else (module.fisher(),)
            averages = self.averages.setdefault(
                module.name, [MovingAverage(self.factor_decay) for _ in batch]
            )
            for average, value in zip(averages, batch):
                average.add(value)
            values = [average.value for average in averages]
            if module.name in self.squares:
                diagonals = zip(own, values)
                directions.update({name: gradients[name] / (s + self.damping) for name, s in diagonals})
            else:
                directions.update(self.solve(module, gradients, values))
        own = [name for name in gradients if directions[name] is not gradients[name]]
        nu = trust_region([(lr, gradients[name], directions[name]) for name in own], self.kl_clip)
        directions.update({name: nu * directions[name] for name in own})
        return loss, {name: self.rule.apply(name, weights[name], directions[name], lr) for name in weights}

    def solve(
        self, module: network.Module, gradients: dict[str, np.ndarray], values: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Preconditioned gradients of one layer, by weight name."""
        name = module.name
        if len(values) == 1:
            d_gamma, d_beta = gradients[f"{name}.gamma"], gradients[f"{name}.beta"]
            U = unit_wise_solve(d_gamma, d_beta, values[0], self.damping)
            return {f"{name}.gamma": U[:, 0], f"{name}.beta": U[:, 1]}
        A, G = values
        if isinstance(module, network.Embedding):
            table = f"{name}.embedding_table"
            return {table: kronecker_solve(gradients[table].T, A, G, self.damping).T}
        bias = gradients.get(f"{name}.bias")
        U, u = precondition(gradients[f"{name}.weight"], bias, A, G, self.damping)
        return {f"{name}.weight": U} if u is None else {f"{name}.weight": U, f"{name}.bias": u}
