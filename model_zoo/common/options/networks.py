"""The network section of a recipe: the network and its options. The data set gives the number of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

from model_zoo.common.errors import RecipeError
from model_zoo.common.options.data import COLOUR_DATA
from model_zoo.common.schema import Value, boolean, integer, one_of, setting


def _depth(accepts: str, holds: Any) -> Value:
    def convert(value: object) -> int:
        depth: int = integer(1).convert(value)
        if not holds(depth):
            raise ValueError
        return depth

    return Value(accepts, convert)


_CIFAR_DEPTH = _depth("an integer 6n+2 of at least 8, such as 20 or 32", lambda d: d >= 8 and d % 6 == 2)
_IMAGENET_DEPTH = _depth("one of 18, 34, 50, 101, 152", (18, 34, 50, 101, 152).__contains__)
_VGG_DEPTH = _depth("one of 11, 13, 16, 19", (11, 13, 16, 19).__contains__)
_PATCH = _depth("one of 1, 2, 4, 8, 16, 32", (1, 2, 4, 8, 16, 32).__contains__)
_PROJECTIONS = one_of(["separate", "joint"])
_NONLINEARITY = one_of(["relu", "tanh", "sigmoid"])


@dataclass(frozen=True)
class ResNetOptions:
    """A CIFAR-form residual network; see model_zoo/resnet/network.py.

    Attributes:
        name: "resnet".
        depth: number of layers with weights, 6n + 2.
        width: multiplier of the channels, of which the first stage has 16.
        shortcut: "identity" (option A) or "projection" (option B) if the shape changes.
    """

    name: str = setting(one_of(["resnet"]))
    depth: int = setting(_CIFAR_DEPTH, 20)
    width: int = setting(integer(1), 1)
    shortcut: str = setting(one_of(["identity", "projection"]), "identity")


@dataclass(frozen=True)
class ImageNetResNetOptions:
    """An ImageNet-form residual network; see model_zoo/resnet/imagenet.py.

    Attributes:
        name: "imagenet_resnet".
        depth: 18 or 34 with basic blocks, 50, 101 or 152 with bottlenecks.
        width: number of channels of the first convolution.
    """

    name: str = setting(one_of(["imagenet_resnet"]))
    depth: int = setting(_IMAGENET_DEPTH, 50)
    width: int = setting(integer(1), 64)


@dataclass(frozen=True)
class VGGOptions:
    """A VGG network with BatchNorm for 32x32 images; see model_zoo/vgg/network.py.

    Attributes:
        name: "vgg".
        depth: layers with weights in the paper's network, two more than in this form.
        width: number of channels of the first group.
    """

    name: str = setting(one_of(["vgg"]))
    depth: int = setting(_VGG_DEPTH, 16)
    width: int = setting(integer(1), 64)


@dataclass(frozen=True)
class ConvNetOptions:
    """Three convolutions and one dense layer; see model_zoo/convnet/network.py.

    Attributes:
        name: "convnet".
    """

    name: str = setting(one_of(["convnet"]))


@dataclass(frozen=True)
class AutoEncoderOptions:
    """The 784-1000-500-250-30 auto-encoder; see model_zoo/autoencoder/network.py.

    Attributes:
        name: "autoencoder".
        nonlinearity: the activation between layers, except after the code layer and the output.
    """

    name: str = setting(one_of(["autoencoder"]))
    nonlinearity: str = setting(_NONLINEARITY, "relu")


@dataclass(frozen=True)
class MLPOptions:
    """The 196-20-20-20-10 classifier; see model_zoo/mlp/network.py.

    Attributes:
        name: "mlp".
        nonlinearity: the activation between layers.
    """

    name: str = setting(one_of(["mlp"]))
    nonlinearity: str = setting(_NONLINEARITY, "tanh")


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise RecipeError(
            f"network.heads is {heads!r}; accepted: a divisor of network.width, which is {width}."
        )


@dataclass(frozen=True)
class ViTOptions:
    """A vision transformer for 32x32 images; see model_zoo/vit/network.py.

    Attributes:
        name: "vit".
        patch: the side of a patch.
        width: the width of a position.
        depth: the number of blocks.
        heads: the number of heads, a divisor of the width.
        projections: "separate" for three dense layers in front of the attention, "joint" for one.
    """

    name: str = setting(one_of(["vit"]))
    patch: int = setting(_PATCH, 4)
    width: int = setting(integer(1), 192)
    depth: int = setting(integer(1), 12)
    heads: int = setting(integer(1), 3)
    projections: str = setting(_PROJECTIONS, "separate")

    def __post_init__(self) -> None:
        """Checks that the heads divide the width."""
        _check_heads(self.width, self.heads)


@dataclass(frozen=True)
class GPTOptions:
    """A GPT on bytes; see model_zoo/gpt/network.py.

    Attributes:
        name: "gpt".
        context: the largest number of positions, at least data.window.
        width: the width of a position.
        depth: the number of blocks.
        heads: the number of heads, a divisor of the width.
        projections: "separate" for three dense layers in front of the attention, "joint" for one.
        tied: whether the decoder is the table of the embedding.
    """

    name: str = setting(one_of(["gpt"]))
    context: int = setting(integer(1), 64)
    width: int = setting(integer(1), 128)
    depth: int = setting(integer(1), 4)
    heads: int = setting(integer(1), 4)
    projections: str = setting(_PROJECTIONS, "separate")
    tied: bool = setting(boolean, False)

    def __post_init__(self) -> None:
        """Checks that the heads divide the width."""
        _check_heads(self.width, self.heads)


NetworkOptions = Union[
    ResNetOptions,
    ImageNetResNetOptions,
    VGGOptions,
    ConvNetOptions,
    AutoEncoderOptions,
    MLPOptions,
    ViTOptions,
    GPTOptions,
]
NETWORKS = {
    "resnet": ResNetOptions,
    "imagenet_resnet": ImageNetResNetOptions,
    "vgg": VGGOptions,
    "convnet": ConvNetOptions,
    "autoencoder": AutoEncoderOptions,
    "mlp": MLPOptions,
    "vit": ViTOptions,
    "gpt": GPTOptions,
}

# The data sets that match a network's input shape.
DATA_OF_NETWORK = {
    "resnet": COLOUR_DATA,
    "imagenet_resnet": COLOUR_DATA,
    "vgg": COLOUR_DATA,
    "convnet": COLOUR_DATA,
    "autoencoder": ("mnist",),
    "mlp": ("mnist14",),
    "vit": COLOUR_DATA,
    "gpt": ("stdlib",),
}
# Networks whose layers require one image size.
SIDE_OF_NETWORK = {"convnet": 32, "vit": 32}

# The metric that is reported next to the loss.
METRIC_OF_NETWORK = {
    **dict.fromkeys(NETWORKS, "accuracy"),
    "autoencoder": "reconstruction_error",
    "gpt": "bits_per_byte",
}


def lower_is_better(metric: str) -> bool:
    """Whether a metric, such as "test_bits_per_byte", is better when it is lower."""
    return metric.endswith(("_error", "_per_byte"))
