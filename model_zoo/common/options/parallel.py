"""The parallel section of a recipe: options of a distributed run."""

from __future__ import annotations

from dataclasses import dataclass

from model_zoo.common.schema import one_of, setting


@dataclass(frozen=True)
class ParallelOptions:
    """Options that only runs with --distributed use.

    Attributes:
        exchange: what the owner of a layer sends to the other ranks, "inverses" or "gradients"; see
            ms_kfac.parallel.Distribution. First-order optimizers ignore it.
        collective: how statistics are reduced, "auto", "all_reduce" or "reduce_scatter"; see there.
        batch_norm: which BatchNorm running statistics are evaluated and saved: "averaged" over the ranks
            after each epoch, or "local" to each rank, of which rank 0's are saved. In training, every rank
            normalizes with the moments of its part of a batch.
    """

    exchange: str = setting(one_of(["inverses", "gradients"]), "inverses")
    collective: str = setting(one_of(["auto", "all_reduce", "reduce_scatter"]), "auto")
    batch_norm: str = setting(one_of(["averaged", "local"]), "averaged")
