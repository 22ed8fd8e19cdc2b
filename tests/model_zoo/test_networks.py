"""Networks: published sizes and shapes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from model_zoo.common.networks import (
    DEPTHS,
    NETWORKS,
    build_network,
    create_network,
    parameter_count,
)
from model_zoo.common.options import networks as options
from model_zoo.common.schema import read_section

AUTOENCODER_SIZES = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)


# Published tables also count biases, and BatchNorm's scale and shift.
@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        # 0.27, 0.46, 0.66, 0.85 and 1.7 million in table 6 of He et al. 2015.
        ("resnet20", {}, 269_722),
        ("resnet32", {}, 464_154),
        ("resnet44", {}, 658_586),
        ("resnet56", {}, 853_018),
        ("resnet110", {}, 1_727_962),
        ("resnet20", {"shortcut": "projection"}, 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
        ("resnet20", {"width": 4}, 4_286_026),
        ("resnet20", {"width": 4, "classes": 100}, 4_286_026 + 90 * 257),
        # torchvision's documentation of resnet18, resnet34, resnet50 and resnet101.
        ("resnet18", {}, 11_689_512),
        ("resnet34", {}, 21_797_672),
        ("resnet50", {}, 25_557_032),
        ("resnet101", {}, 44_549_160),
        ("resnet50", {"classes": 10}, 25_557_032 - 990 * 2049),
        # torchvision's documentation of vgg16_bn: 138,365,992, with biases in convolutions and dense layers
        # of 25088-4096-4096-1000.
        (
            "vgg16",
            {"classes": 1000},
            138_365_992 - 4224 - (25_089 * 4096 + 4097 * 4096 + 4097 * 1000) + 513 * 1000,
        ),
        ("vgg16", {}, 14_724_042),
        # Weights of the four layers in layers-18pct.cfg, and their biases.
        ("convnet", {}, 2400 + 25_600 + 51_200 + 10_240 + 32 + 32 + 64 + 10),
        ("convnet", {"classes": 100}, 89_578 + 90 * 1025),
    ],
)
def test_networks_have_the_published_parameter_counts(name: str, arguments: dict, count: int) -> None:
    assert parameter_count(create_network(name, **arguments)) == count


# One block of GPT-2: normalizations, attention, two dense layers.
GPT2_BLOCK = 4 * 768 + 4 * 769 * 768 + 769 * 3072 + 3073 * 768


@pytest.mark.parametrize("projections", ["separate", "joint"])
@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        # DeiT-Ti of timm has 5,717,416; this form has no class token, which has a position too.
        ("vit", {"patch": 16, "image_size": 224, "classes": 1000}, 5_717_416 - 2 * 192),
        ("vit", {}, 5_717_416 - 2 * 192 - (16**2 - 4**2) * 3 * 192 - (14**2 - 8**2) * 192 - 990 * 193),
        # GPT-2 has 124,439,808, with 12 blocks, 50,257 tokens and 1,024 positions.
        (
            "gpt",
            {"context": 64, "width": 768, "depth": 1, "heads": 12, "tied": True},
            124_439_808 - 11 * GPT2_BLOCK - (50_257 - 256) * 768 - (1024 - 64) * 768,
        ),
        (
            "gpt",
            {"width": 32, "depth": 1, "context": 8},
            2 * 256 * 32 + 8 * 32 + 6 * 32 + 12 * 32**2 + 9 * 32,
        ),
    ],
)
def test_transformers_have_the_published_numbers_of_weights(
    name: str, arguments: dict, count: int, projections: str
) -> None:
    assert parameter_count(create_network(name, projections=projections, **arguments)) == count


def test_dense_networks_have_the_expected_parameter_counts() -> None:
    pairs = zip(AUTOENCODER_SIZES[:-1], AUTOENCODER_SIZES[1:])
    assert parameter_count(create_network("autoencoder")) == sum((i + 1) * o for i, o in pairs)
    assert parameter_count(create_network("mlp")) == 197 * 20 + 2 * 21 * 20 + 21 * 10


@pytest.mark.parametrize(
    ("name", "arguments", "inputs", "outputs"),
    [
        ("resnet", {"depth": 8}, (2, 3, 32, 32), (2, 10)),
        ("resnet", {"depth": 8, "shortcut": "projection", "width": 2}, (2, 3, 32, 32), (2, 10)),
        ("imagenet_resnet", {"depth": 18, "width": 4, "classes": 7}, (2, 3, 64, 96), (2, 7)),
        ("vgg", {"depth": 11, "width": 2, "classes": 100}, (2, 3, 32, 32), (2, 100)),
        ("convnet", {"classes": 100}, (2, 3, 32, 32), (2, 100)),
        ("autoencoder", {"nonlinearity": "tanh"}, (2, 784), (2, 784)),
        ("mlp", {"nonlinearity": "sigmoid"}, (2, 196), (2, 10)),
        ("mlp", {"classes": 3}, (2, 196), (2, 3)),
        ("vit", {"depth": 1, "width": 6, "patch": 8, "classes": 100}, (2, 3, 32, 32), (2, 100)),
        ("vit", {"depth": 1, "width": 6, "patch": 8, "projections": "joint"}, (2, 3, 32, 32), (2, 10)),
    ],
)
def test_network_output_shapes(
    name: str, arguments: dict, inputs: tuple, outputs: tuple, rng: np.random.Generator
) -> None:
    network = create_network(name, **arguments).set_train(False)
    result = network(ms.Tensor(rng.standard_normal(inputs), ms.float32)).asnumpy()
    assert result.shape == outputs
    assert np.isfinite(result).all()


def test_identity_shortcut_subsamples_pixels_and_pads_channels(
    rng: np.random.Generator,
) -> None:
    from model_zoo.resnet.network import IdentityShortcut

    x = rng.standard_normal((2, 4, 6, 6)).astype(np.float32)
    y = IdentityShortcut(4, 8, 2)(ms.Tensor(x)).asnumpy()
    np.testing.assert_array_equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, [0, 1, 6, 7]].any()


def test_autoencoder_code_layer_is_linear() -> None:
    cells = list(create_network("autoencoder").layers)
    kinds = "".join("D" if type(cell).__name__ == "Dense" else "-" for cell in cells)
    assert kinds == "D-D-D-DD-D-D-D"


@pytest.mark.parametrize("name", ["autoencoder", "mlp"])
@pytest.mark.parametrize(
    ("nonlinearity", "kind"), [("relu", "ReLU"), ("tanh", "Tanh"), ("sigmoid", "Sigmoid")]
)
def test_nonlinearity_is_the_requested_one(name: str, nonlinearity: str, kind: str) -> None:
    cells = create_network(name, nonlinearity=nonlinearity).layers
    assert {type(cell).__name__ for cell in cells} == {"Dense", kind}


def test_vgg_has_its_convolutions_in_five_groups() -> None:
    network = create_network("vgg16", width=2)
    letters = {"Conv2d": "C", "BatchNorm2d": "B", "ReLU": "R", "MaxPool2d": "M"}
    kinds = "".join(letters[type(cell).__name__] for cell in network.features)
    assert kinds == "CBRCBRM" * 2 + "CBRCBRCBRM" * 3
    channels = [cell.out_channels for cell in network.features if type(cell).__name__ == "Conv2d"]
    assert channels == [2, 2, 4, 4, 8, 8, 8, *[16] * 6]


def test_pooling_of_the_small_network_begins_at_the_first_pixel(rng: np.random.Generator) -> None:
    network = create_network("convnet")
    x = rng.standard_normal((1, 2, 6, 6)).astype(np.float32)
    for pool, reduce in ((network.pool1, np.max), (network.pool2, np.mean), (network.pool3, np.mean)):
        # Windows at the end are cut short there, for means too.
        expected = [
            [reduce(x[:, :, i : i + 3, j : j + 3], axis=(2, 3)) for j in range(0, 6, 2)]
            for i in range(0, 6, 2)
        ]
        result = pool(ms.Tensor(x)).asnumpy()
        # Sums of at most nine float32 numbers near 1, each rounded to 6e-8.
        np.testing.assert_allclose(result, np.array(expected).transpose(2, 3, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "layer"),
    [
        ("vgg", {"depth": 11}, "features.0"),
        ("convnet", {}, "conv1"),
        ("imagenet_resnet", {"depth": 18}, "layer1.0.conv1"),
    ],
)
def test_convolutions_have_he_initialization(name: str, arguments: dict, layer: str) -> None:
    ms.set_seed(1)
    cells = dict(create_network(name, **arguments).cells_and_names())
    weight = cells[layer].weight.asnumpy()
    variance = 2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])
    # The variance of n normal numbers is off by sqrt(2 / n) of itself; five of these.
    assert np.mean(np.square(weight)) == pytest.approx(variance, rel=5 * np.sqrt(2 / weight.size))
    if cells[layer].has_bias:
        assert not cells[layer].bias.asnumpy().any()


def test_a_recipe_can_name_every_network_that_can_be_created() -> None:
    assert set(NETWORKS) == set(options.NETWORKS) == set(options.DATA_OF_NETWORK)
    for family, depth in DEPTHS.values():
        assert read_section(options.NETWORKS[family], {"name": family, "depth": depth}, "").depth == depth


def test_a_network_of_a_recipe_has_the_classes_of_its_data() -> None:
    logits = build_network(options.ConvNetOptions("convnet"), 100)(ms.ops.zeros((1, 3, 32, 32)))
    assert logits.shape == (1, 100)
    autoencoder = build_network(options.AutoEncoderOptions("autoencoder"), 10)
    assert autoencoder(ms.ops.zeros((1, 784))).shape == (1, 784)


def test_unknown_network_options_are_reported() -> None:
    with pytest.raises(
        ValueError, match=r"must be one of resnet, imagenet_resnet, vgg, .* vgg16, .*got 'lenet'"
    ):
        create_network("lenet")
    with pytest.raises(
        ValueError, match="depth: must be left out with 'resnet50', whose depth is 50; 'imagenet_resnet'"
    ):
        create_network("resnet50", depth=101)
    with pytest.raises(ValueError, match="depth: must be one of 11, 13, 16, 19, got 12"):
        create_network("vgg", depth=12)
    with pytest.raises(ValueError, match="6n \\+ 2"):
        create_network("resnet", depth=18)
    with pytest.raises(ValueError, match="shortcut"):
        create_network("resnet", shortcut="none")
    with pytest.raises(ValueError, match="patch: must be a divisor of the image's side 32, got 5"):
        create_network("vit", patch=5)
    with pytest.raises(ValueError, match="heads: must be a divisor of the width 128, got 3"):
        create_network("gpt", heads=3)
    with pytest.raises(ValueError, match="projections: must be separate or joint, got 'three'"):
        create_network("gpt", projections="three")
    with pytest.raises(ValueError, match="nonlinearity"):
        create_network("mlp", nonlinearity="swish")
