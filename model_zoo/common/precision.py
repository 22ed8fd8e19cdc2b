"""Mixed precision, loss scale and gradient accumulation of a recipe, as ms_kfac.Model takes them."""

from __future__ import annotations

from typing import Any

import mindspore as ms

from model_zoo.common.errors import DataError
from model_zoo.common.options.precision import DYNAMIC
from model_zoo.common.recipe import Recipe


def check_step(recipe: Recipe, batches: int) -> None:
    """Makes sure that the optimizer takes a step.

    Args:
        recipe: the recipe.
        batches: batches of an epoch.

    Raises:
        DataError: all epochs together have fewer batches than one step takes.
    """
    if recipe.epochs * batches < recipe.accumulation_steps:
        raise DataError(
            f"all epochs together have {recipe.epochs * batches:,} batches, fewer than one step takes "
            f"(accumulation_steps {recipe.accumulation_steps})."
        )


def training_options(recipe: Recipe) -> dict[str, Any]:
    """What says how a training computes.

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
        # Given even where there is none: level O2 alone would choose a dynamic one.
        "loss_scale_manager": manager,
        "accumulation_steps": recipe.accumulation_steps,
    }
