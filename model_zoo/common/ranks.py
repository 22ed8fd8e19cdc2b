"""What the number of processes alone can tell, before MindSpore starts."""

from __future__ import annotations

import os
from pathlib import Path

from model_zoo.common.checkpoint.files import require_ranks
from model_zoo.common.data.shards import check_batch_divides
from model_zoo.common.errors import UsageError
from model_zoo.common.recipe import Recipe

_VARIABLE = "MS_WORKER_NUM"
_ROLE = "MS_ROLE"
SCHEDULER = "MS_SCHED"


def announced_ranks() -> int | None:
    """The number of processes, which msrun tells its workers, and the launcher tells --check.

    Returns:
        Their number; None if this process was started without them.

    Raises:
        UsageError: the variable holds no number.
    """
    text = os.environ.get(_VARIABLE)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{_VARIABLE} must be an integer of at least 1, got {text!r}.")
    return int(text)


def role_in_msrun() -> str | None:
    """What msrun has started this process as: "MS_WORKER" or `SCHEDULER`; None without msrun."""
    return os.environ.get(_ROLE)


def check_ranks(recipe: Recipe, resume: Path | None, ranks: int | None) -> None:
    """Checks that a number of processes can train a recipe, or resume a run.

    Args:
        recipe: the recipe.
        resume: the folder of the run to resume; None for a new run.
        ranks: the number of processes; None if it is not known, and nothing is checked.

    Raises:
        DataError: they can't divide a batch equally.
        CheckpointError: another number of processes wrote the checkpoints of the run.
    """
    if ranks is None:
        return
    check_batch_divides(recipe.data.batch_size, ranks)
    if resume is not None:
        require_ranks(resume, ranks)
