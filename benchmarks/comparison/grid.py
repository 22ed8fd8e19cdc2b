"""The methods and their grids. All grids have the same size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

POINTS = 12
RATE, MOMENTUM, DECAY = "optimizer.learning_rate", "optimizer.momentum", "optimizer.weight_decay"
BETA2, DAMPING, CLIP = "optimizer.beta2", "optimizer.damping", "optimizer.kl_clip"
NESTEROV = "optimizer.nesterov=true"

Values = tuple[float, ...]


@dataclass(frozen=True)
class Method:
    """A method and its grid.

    Attributes:
        recipe: the last word of its recipes.
        grid: the values of the keys that are tuned.
        settings: overrides of the recipe.
    """

    recipe: str
    grid: dict[str, Values]
    settings: tuple[str, ...] = ()

    def with_settings(self, *settings: str) -> Method:
        """The method with further overrides of the recipe."""
        return replace(self, settings=(*self.settings, *settings))

    def points(self) -> list[str]:
        """The points of the grid, each as overrides separated by spaces."""
        return [
            " ".join(f"{key}={value:g}" for key, value in zip(self.grid, values))
            for values in itertools.product(*self.grid.values())
        ]

    def edges(self, point: str) -> list[str]:
        """The keys whose value at a point is the first or the last of at least three."""
        chosen = dict(part.split("=") for part in point.split())
        return [
            key
            for key, values in self.grid.items()
            if len(values) > 2 and float(chosen[key]) in (values[0], values[-1])
        ]


# KFAC(net, learning_rate) with nothing else set; only the rate is tuned.
KFAC_DEFAULT = Method(
    "kfac",
    {RATE: (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)},
    ("optimizer={name: kfac, learning_rate: 0.1}",),
)
# How the methods without a recipe of their own follow from the recipe of K-FAC.
DERIVED = {
    "tkfac": ("optimizer.name=tkfac",),
    # The default's ten would last for most of a short run, which would then be K-FAC's.
    "smkfac": ("optimizer.name=smkfac", "optimizer.full_refreshes=2"),
    "skfac": ("optimizer.name=skfac", "optimizer.damping_split=pi"),
    "ekfac": ("optimizer.name=ekfac",),
    # Its own policies decide when to refresh.
    "spngd": ("optimizer.name=spngd", "optimizer.factor_interval=null", "optimizer.inverse_interval=null"),
    "thor": ("optimizer.name=thor",),
}


def second_order(
    grid: dict[str, Values],
    *settings: str,
    own: Sequence[str] = (),
    grids: dict[str, dict[str, Values]] | None = None,
) -> dict[str, Method]:
    """All second-order methods of the package with one grid, and K-FAC with its defaults.

    Args:
        grid: the grid.
        settings: overrides of the recipes.
        own: the methods with a recipe of their own, next to K-FAC.
        grids: the grids of methods that need others.

    Returns:
        The methods by name.
    """
    methods = {"kfac": Method("kfac", grid, settings), "kfac-default": KFAC_DEFAULT}
    for name, derived in DERIVED.items():
        recipe, overrides = (name, ()) if name in own else ("kfac", derived)
        methods[name] = Method(recipe, (grids or {}).get(name, grid), (*overrides, *settings))
    return methods


def _transformers(
    adamw: dict[str, Values],
    sgdm: dict[str, Values],
    grid: dict[str, Values],
    grids: dict[str, dict[str, Values]] | None = None,
) -> dict[str, Method]:
    # While the clip is active it sets the step's length, and the learning rate has hardly any effect.
    methods = second_order(grid, f"{RATE}=0.1", own=("ekfac", "skfac"), grids=grids)
    kfac, ekfac, skfac = (methods[name] for name in ("kfac", "ekfac", "skfac"))
    reduce = "optimizer.sharing=reduce"
    return {
        "adamw": Method("adamw", adamw),
        "sgdm": Method("sgdm", sgdm),
        "nesterov": Method("sgdm", sgdm, (NESTEROV,)),
        **methods,
        "kfac-momentum": kfac.with_settings("optimizer.first_order={name: momentum}"),
        "kfac-reduce": kfac.with_settings(reduce),
        "kfac-sampled": kfac.with_settings("optimizer.fisher=sampled"),
        "kfac-unitwise": kfac.with_settings("optimizer.normalization=unit_wise"),
        "ekfac-reduce": ekfac.with_settings(reduce),
        "skfac-reduce": skfac.with_settings(reduce),
    }


def _gpt() -> dict[str, Method]:
    # The loss of a text is a mean over T positions, which makes K-FAC's curvature about T times smaller than
    # that of one position: small dampings pay, and with them small clips. This grid was moved once, after
    # trials.
    return _transformers(
        {RATE: (0.0005, 0.001, 0.002, 0.004), BETA2: (0.95, 0.99, 0.999)},
        {RATE: (0.03, 0.1, 0.3, 1.0), MOMENTUM: (0.8, 0.9, 0.95)},
        {CLIP: (3e-7, 1e-6, 3e-6), DAMPING: (1e-6, 1e-5, 1e-4, 1e-3)},
    )


def _vit() -> dict[str, Method]:
    # The second of two grids. The first had no weight decay; it gave the single values here, and its best
    # points were at the edges of the others. AdamW's decay is decoupled, at rates of about 0.004, and larger.
    decay: Values = (0.0005, 0.002, 0.008)
    clip: Values = (1e-7, 3e-7, 1e-6, 3e-6)
    return _transformers(
        {RATE: (0.002, 0.004, 0.008, 0.016), BETA2: (0.95,), DECAY: (0.05, 0.2, 0.8)},
        {RATE: (0.3, 0.6, 1.0, 2.0), MOMENTUM: (0.8,), DECAY: decay},
        {CLIP: clip, DAMPING: (1e-4,), DECAY: decay},
        grids={"ekfac": {CLIP: clip, DAMPING: (1e-5,), DECAY: decay}},
    )


def _convnet() -> dict[str, Method]:
    # Without augmentation the test error depends on the weight decay, so every grid has the same two values.
    # AdamW's is decoupled, at rates of about 0.001, and larger.
    decay: Values = (0.0005, 0.002)
    sgdm: dict[str, Values] = {RATE: (0.005, 0.01, 0.02, 0.04, 0.08, 0.16), DECAY: decay}
    grid: dict[str, Values] = {DAMPING: (0.01, 0.03, 0.1), CLIP: (0.0005, 0.005), DECAY: decay}
    # Its damping is added to each product of eigenvalues, without cross terms.
    ekfac: dict[str, Values] = {DAMPING: (0.03, 0.1, 0.3), CLIP: (0.0001, 0.001), DECAY: decay}
    adamw: dict[str, Values] = {RATE: (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008), DECAY: (0.05, 0.5)}
    return {
        "sgdm": Method("sgdm", sgdm),
        "nesterov": Method("sgdm", sgdm, (NESTEROV,)),
        "adamw": Method("adam", adamw, ("optimizer.name=adamw",)),
        **second_order(grid, f"{RATE}=0.03", grids={"ekfac": ekfac}),
    }


def _autoencoder() -> dict[str, Method]:
    # The second of two grids. The best points of the first were at its edges: SGD's at its least momentum,
    # Adam's at its least rate and beta2, K-FAC's at its largest rate and damping.
    grid: dict[str, Values] = {RATE: (0.2, 0.5, 1.0, 2.0), DAMPING: (0.3, 1.0, 3.0)}
    sgdm: dict[str, Values] = {RATE: (0.003, 0.01, 0.03, 0.1), MOMENTUM: (0.5, 0.8, 0.9)}
    adam: dict[str, Values] = {RATE: (0.0001, 0.0002, 0.0004, 0.0008), BETA2: (0.8, 0.9, 0.95)}
    return {
        "sgdm": Method("sgdm", sgdm),
        "nesterov": Method("sgdm", sgdm, (NESTEROV,)),
        "adam": Method("adam", adam),
        **second_order(grid, own=tuple(DERIVED)),
    }


def _resnet20() -> dict[str, Method]:
    sgdm: dict[str, Values] = {RATE: (0.05, 0.1, 0.2, 0.4), DECAY: (0.0001, 0.0005, 0.002)}
    grid: dict[str, Values] = {RATE: (0.03, 0.1, 0.3), DAMPING: (0.03, 0.1), DECAY: (0.0005, 0.002)}
    # The automatic damping does not use lambda.
    automatic: dict[str, Values] = {
        RATE: (0.03, 0.1, 0.3),
        "optimizer.nu": (0.01, 0.1),
        DECAY: (0.0005, 0.002),
    }
    adamw: dict[str, Values] = {RATE: (0.001, 0.002, 0.004, 0.008), DECAY: (0.01, 0.05, 0.25)}
    # The clip of the recipe would set the length of most steps, and the rate's cycle would have no effect.
    clip = f"{CLIP}=0.01"
    # Its damping is added to each product of eigenvalues, without cross terms, and needs the smaller clips.
    ekfac: dict[str, Values] = {DAMPING: (0.1, 0.3), CLIP: (0.0003, 0.001, 0.003), DECAY: (0.0005, 0.002)}
    methods = second_order(grid, clip, grids={"ekfac": ekfac})
    new = Method("kfac", automatic, (*DERIVED["tkfac"], "optimizer.damping_mode=automatic", clip))
    return {
        "sgdm": Method("sgdm", sgdm),
        "nesterov": Method("sgdm", sgdm, (NESTEROV,)),
        "adamw": Method("adam", adamw, ("optimizer.name=adamw",)),
        "kfac": methods.pop("kfac"),
        "tkfac": methods.pop("tkfac"),
        "tkfac-new": new,
        **methods,
    }


GPT = _gpt()
VIT = _vit()
CONVNET = _convnet()
AUTOENCODER = _autoencoder()
RESNET20 = _resnet20()
