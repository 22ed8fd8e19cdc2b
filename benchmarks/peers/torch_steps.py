"""Steps of libraries for PyTorch and of ``torch.optim.SGD``. A library is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.peers.problems import DAMPING, LEARNING_RATE, MOMENTUM, Problem, intervals
from benchmarks.peers.torch_networks import create_network

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Plain:
    """Forward pass, backward pass, what stands between them and the step, and the step."""

    def __init__(self, problem: Problem) -> None:
        self.network = create_network(problem.name)
        self.inputs, self.targets = torch.from_numpy(problem.inputs), torch.from_numpy(problem.targets)
        if problem.classifies:
            self.targets = self.targets.long()
        self.classifies = problem.classifies
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
            self.network.parameters(), LEARNING_RATE, MOMENTUM
        )
        self.precondition: Callable[[], Any] = lambda: None

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss, mean over samples."""
        if self.classifies:
            return nn.functional.cross_entropy(outputs, targets)
        entropy = nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")
        return entropy / len(targets)

    def __call__(self) -> float:
        """Takes one step and returns the loss."""
        self.optimizer.zero_grad()
        loss = self.loss(self.network(self.inputs), self.targets)
        loss.backward()
        self.precondition()
        self.optimizer.step()
        return loss.item()


class Asdl(Plain):
    """asdfghjkl's K-FAC: it runs the passes itself."""

    def __init__(self, problem: Problem, kind: str) -> None:
        from asdl.precondition import KfacGradientMaker, PreconditioningConfig

        super().__init__(problem)
        factors, inverses = intervals(kind)
        configuration = PreconditioningConfig(
            data_size=len(self.inputs),
            damping=DAMPING,
            ema_decay=0.05,
            curvature_upd_interval=factors,
            preconditioner_upd_interval=inverses,
        )
        self.maker = KfacGradientMaker(self.network, configuration, fisher_type="fisher_emp")
        # It reads the attribute `reduction`, so it can't take `loss`.
        self.entropy = nn.CrossEntropyLoss() if self.classifies else nn.BCEWithLogitsLoss(reduction="sum")

    def __call__(self) -> float:
        """Takes one step and returns the loss."""
        self.optimizer.zero_grad()
        outputs = self.maker.setup_model_call(self.network, self.inputs)
        self.maker.setup_loss_call(self.entropy, outputs, self.targets)
        _, loss = self.maker.forward_and_backward()
        self.optimizer.step()
        return float(loss.detach())


def _kfac_pytorch(problem: Problem, kind: str, method: str) -> Plain:
    from kfac.preconditioner import KFACPreconditioner

    plain = Plain(problem)
    factors, inverses = intervals(kind)
    preconditioner = KFACPreconditioner(
        plain.network,
        factor_update_steps=factors,
        inv_update_steps=inverses,
        damping=DAMPING,
        lr=LEARNING_RATE,
        compute_method=method,
    )
    plain.precondition = preconditioner.step
    return plain


def _singd(problem: Problem, kind: str) -> Plain:
    from singd.optim.optimizer import SINGD

    plain = Plain(problem)
    plain.optimizer = SINGD(
        plain.network,
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        damping=DAMPING,
        # It updates what takes the place of the inverses whenever it takes statistics.
        T=intervals(kind)[0],
        alpha1=0.0,
        kfac_like=True,
    )
    return plain


def _soap(problem: Problem, kind: str) -> Plain:
    from pytorch_optimizer import SOAP

    plain = Plain(problem)
    # Its factors are products of gradients, and enter at every step.
    frequency = intervals(kind)[1]
    plain.optimizer = SOAP(plain.network.parameters(), lr=LEARNING_RATE, precondition_frequency=frequency)
    return plain


def create_step(library: str, problem: Problem, kind: str) -> Callable[[], float]:
    """A training step.

    Args:
        library: "kfac-pytorch eigen", "kfac-pytorch inverse", "asdfghjkl", "singd" or "soap".
        problem: the network and the batch.
        kind: one of KINDS.

    Returns:
        A function that takes one step and waits for the loss.
    """
    if kind == "sgd":
        return Plain(problem)
    if library.startswith("kfac-pytorch"):
        return _kfac_pytorch(problem, kind, library.split()[1])
    return {"asdfghjkl": Asdl, "singd": _singd, "soap": _soap}[library](problem, kind)
