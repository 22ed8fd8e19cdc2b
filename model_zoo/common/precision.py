"""Converts a recipe's mixed precision, loss scale and gradient accumulation to ms_kfac.Model arguments."""

from __future__ import annotations

from typing import Any

import mindspore as ms

from model_zoo.common.errors import DataError
from model_zoo.common.options.precision import DYNAMIC
from model_zoo.common.recipe import Recipe


def check_step(recipe: Recipe, batches: int) -> None:
    """Checks that the optimizer takes at least one step.

    Args:
        recipe: the recipe.
        batches: batches in an epoch.

    Raises:
        DataError: all epochs together have fewer batches than one step needs.
    """
    if recipe.epochs * batches < recipe.accumulation_steps:
        raise DataError(
            f"all epochs together have {recipe.epochs * batches:,} batches, fewer than one step needs "
            f"(accumulation_steps {recipe.accumulation_steps})."
        )


def training_options(recipe: Recipe) -> dict[str, Any]:
    """The precision and accumulation arguments of ms_kfac.Model.

    Args:
        recipe: the recipe.

    Returns:
        Keyword arguments of ms_kfac.Model.
    """
    scale = recipe.precision.loss_scale
    manager = None
    if scale == DYNAMIC:
        manager = ms.DynamicLossScaleManager()
    elif scale is not None:
        manager = ms.FixedLossScaleManager(scale)
    return {
        "amp_level": recipe.precision.amp_level,
        # Passed even if it is None: otherwise level O2 chooses a dynamic loss scale.
        "loss_scale_manager": manager,
        "accumulation_steps": recipe.accumulation_steps,
    }
