"""The parallel section of a recipe: how the processes of a distributed run work together."""

from __future__ import annotations

from dataclasses import dataclass

from model_zoo.common.schema import one_of, setting


@dataclass(frozen=True)
class ParallelOptions:
    """Looked at by runs with --distributed alone.

    Attributes:
        exchange: what the owners of layers send to the other ranks, "inverses" or "gradients"; see
            ms_kfac.parallel.Distribution. First-order optimizers have nothing to exchange.
        collective: how statistics meet, "auto", "all_reduce" or "reduce_scatter"; see there.
        batch_norm: the moving moments that are evaluated and saved: "averaged" over the ranks after each
            epoch, or "local", each rank's own, of which rank 0's are saved. In training every rank normalises
            its part of a batch by that part's moments.
    """

    exchange: str = setting(one_of(["inverses", "gradients"]), "inverses")
    collective: str = setting(one_of(["auto", "all_reduce", "reduce_scatter"]), "auto")
    batch_norm: str = setting(one_of(["averaged", "local"]), "averaged")
