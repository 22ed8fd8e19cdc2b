"""The layers of ResNet-50 with Kronecker factors, computed from its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A convolution without bias, or the dense layer with one.

    Attributes:
        name: its name in the network.
        inputs: input channels or features.
        outputs: output channels or features.
        image: height and width of the input; 0 for the dense layer.
        kernel: height and width of the kernel; 0 for the dense layer.
        stride: in both directions.
    """

    name: str
    inputs: int
    outputs: int
    image: int = 0
    kernel: int = 0
    stride: int = 1

    @property
    def dense(self) -> bool:
        """Whether this is the dense layer."""
        return self.kernel == 0

    @property
    def padding(self) -> int:
        """Zero padding on every side of the image."""
        return self.kernel // 2

    @property
    def output_image(self) -> int:
        """Height and width of the output; 0 for the dense layer."""
        return 0 if self.dense else (self.image + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def locations(self) -> int:
        """Output locations per sample, T."""
        return 1 if self.dense else self.output_image**2

    @property
    def input_dimension(self) -> int:
        """Dimension of A."""
        return self.inputs + 1 if self.dense else self.inputs * self.kernel**2

    @property
    def output_dimension(self) -> int:
        """Dimension of G."""
        return self.outputs

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weight and, if present, the bias."""
        if self.dense:
            return (self.outputs, self.inputs), (self.outputs,)
        return ((self.outputs, self.inputs, self.kernel, self.kernel),)

    @property
    def form(self) -> tuple[int, ...]:
        """A key that is equal for layers of equal cost."""
        return self.inputs, self.outputs, self.image, self.kernel, self.stride

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of a batch's input."""
        return (batch, self.inputs) if self.dense else (batch, self.inputs, self.image, self.image)

    def gradient_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of a batch's output gradient."""
        return (batch, self.outputs) if self.dense else (batch, self.outputs, *(self.output_image,) * 2)

    def geometry(self) -> dict[str, Any]:
        """The attributes of the layer's statistics operator."""
        if self.dense:
            return {"convolution": False, "bias": True}
        return {
            "convolution": True,
            "bias": False,
            "groups": 1,
            "same_padding": False,
            "padding": [self.padding] * 4,
            "kernel_size": [self.kernel] * 2,
            "stride": [self.stride] * 2,
            "dilation": [1, 1],
        }


def resnet50_layers(
    *, image: int = 224, width: int = 64, blocks: Sequence[int] = (3, 4, 6, 3), classes: int = 1000
) -> list[Layer]:
    """The convolutions and the dense layer, in network order.

    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2015, table 1, with the stride of
    a block in its 3x3 convolution, as in :class:`model_zoo.resnet.imagenet.ImageNetResNet`.

    Args:
        image: height and width of the images.
        width: channels of the first convolution.
        blocks: blocks per stage.
        classes: outputs of the dense layer.

    Returns:
        The layers; 54 with the defaults.
    """
    layers = [Layer("conv1", 3, width, image, 7, 2)]
    # A 3x3 pooling of stride 2 follows, padded by one.
    side = (layers[0].output_image - 1) // 2 + 1
    inputs = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"layer{stage + 1}.{block}"
            middle = Layer(f"{name}.conv2", inner, inner, side, 3, stride)
            layers += [
                Layer(f"{name}.conv1", inputs, inner, side, 1),
                middle,
                Layer(f"{name}.conv3", inner, 4 * inner, middle.output_image, 1),
            ]
            if block == 0:
                layers.append(Layer(f"{name}.shortcut", inputs, 4 * inner, side, 1, stride))
            side, inputs = middle.output_image, 4 * inner
    return [*layers, Layer("fc", inputs, classes)]


def small_layers() -> list[Layer]:
    """A small version with every kind of layer, for dry runs."""
    return resnet50_layers(image=32, width=8, blocks=(1, 1, 1, 1), classes=10)


def distinct(layers: Sequence[Layer]) -> list[tuple[Layer, int]]:
    """One layer per shape, and the number of layers with that shape."""
    first: dict[tuple[int, ...], Layer] = {}
    counts: dict[tuple[int, ...], int] = {}
    for layer in layers:
        first.setdefault(layer.form, layer)
        counts[layer.form] = counts.get(layer.form, 0) + 1
    return [(layer, counts[form]) for form, layer in first.items()]
