"""The ImageNet form of residual networks: published sizes and shapes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from model_zoo.resnet.imagenet import ImageNetResNet


def test_stages_shrink_the_image_by_thirty_two(rng: np.random.Generator) -> None:
    network = ImageNetResNet(width=8, blocks=(1, 1, 1, 1), classes=5).set_train(False)
    images = ms.Tensor(rng.standard_normal((2, 3, 64, 64)), ms.float32)
    x = network.pool(network.relu(network.bn1(network.conv1(images))))
    sides = [x.shape[2]]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        sides.append(x.shape[2])
    assert sides == [16, 16, 8, 4, 2]
    assert x.shape[1] == 4 * 8 * 8
    logits = network(images).asnumpy()
    assert logits.shape == (2, 5)
    assert np.isfinite(logits).all()


def test_the_three_by_three_convolution_has_the_stride() -> None:
    first = ImageNetResNet(width=8, blocks=(1, 1, 1, 1), classes=5).layer2[0]
    strides = [cell.stride for cell in (first.conv1, first.conv2, first.conv3, first.shortcut[0])]
    assert strides == [(1, 1), (2, 2), (1, 1), (2, 2)]


def test_basic_blocks_have_the_stride_in_their_first_convolution() -> None:
    first = ImageNetResNet(18, width=4, classes=5).layer2[0]
    strides = [cell.stride for cell in (first.conv1, first.conv2, first.shortcut[0])]
    assert strides == [(2, 2), (1, 1), (2, 2)]
    assert [first.conv1.kernel_size, first.conv2.kernel_size] == [(3, 3), (3, 3)]


def test_other_depths_are_refused() -> None:
    with pytest.raises(ValueError, match="depth: must be one of 18, 34, 50, 101, 152, got 20"):
        ImageNetResNet(20)
