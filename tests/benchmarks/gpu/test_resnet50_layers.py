"""The table of ResNet-50's layers matches the zoo's network."""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import nn

from benchmarks.gpu.resnet50_layers import Layer, distinct, resnet50_layers, small_layers
from model_zoo.resnet.imagenet import ImageNetResNet


def layers_of(network: nn.Cell) -> Iterator[Layer]:
    """Convolutions and dense layers, with their inputs in a forward pass."""
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            yield Layer(
                name.replace("shortcut.0", "shortcut"),
                cell.in_channels,
                cell.out_channels,
                kernel=cell.kernel_size[0],
                stride=cell.stride[0],
            )
        elif isinstance(cell, nn.Dense):
            yield Layer(name, cell.in_channels, cell.out_channels)


def test_the_layers_are_those_of_the_network() -> None:
    def described(layers: Iterator[Layer] | list[Layer]) -> list[tuple]:
        return [(layer.name, layer.inputs, layer.outputs, layer.kernel, layer.stride) for layer in layers]

    table = resnet50_layers()
    assert described(table) == described(layers_of(ImageNetResNet()))
    assert len(table) == 54
    assert sum(int(np.prod(shape)) for layer in table for shape in layer.parameter_shapes) == (
        # All weights except the two of each channel that belong to normalization.
        25_557_032 - 2 * sum(layer.outputs for layer in table if not layer.dense)
    )


def test_images_are_those_that_the_layers_see(monkeypatch) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for kind in (nn.Conv2d, nn.Dense):
        inner = kind.construct

        def construct(self, x, inner=inner):
            y = inner(self, x)
            seen.append((tuple(x.shape), tuple(y.shape)))
            return y

        monkeypatch.setattr(kind, "construct", construct)
    network = ImageNetResNet(width=8, blocks=(1, 1, 1, 1), classes=10).set_train(False)
    network(ms.Tensor(np.zeros((2, 3, 32, 32)), ms.float32))
    expected = [(layer.input_shape(2), layer.gradient_shape(2)) for layer in small_layers()]
    assert seen == expected


def test_layers_of_one_form_are_counted_together() -> None:
    table = resnet50_layers()
    forms = distinct(table)
    assert sum(count for _, count in forms) == len(table)
    assert len({layer.form for layer, _ in forms}) == len(forms)
    counts = {layer.name: count for layer, count in forms}
    # Blocks 1 and 2 of the first stage have the shapes of block 0, except for their inputs.
    assert counts["layer1.0.conv2"] == 3
    assert counts["layer1.0.conv1"] == 1
    assert counts["layer1.1.conv1"] == 2


def test_dimensions_of_the_factors() -> None:
    by_name = {layer.name: layer for layer in resnet50_layers()}
    assert by_name["conv1"].input_dimension == 3 * 49
    assert by_name["conv1"].locations == 112**2
    assert by_name["layer4.2.conv2"].input_dimension == 512 * 9
    assert by_name["layer4.0.conv2"].locations == by_name["layer4.2.conv2"].locations == 49
    assert by_name["fc"].input_dimension == 2049
    assert by_name["fc"].output_dimension == 1000
