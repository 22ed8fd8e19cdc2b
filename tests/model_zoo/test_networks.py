"""Networks: published sizes and shapes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from model_zoo.common.networks import create_network, parameter_count

AUTOENCODER_SIZES = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        # 0.27, 0.46 and 0.85 million in table 6 of He et al. 2015.
        ({"depth": 20}, 269_722),
        ({"depth": 32}, 464_154),
        ({"depth": 56}, 853_018),
        ({"depth": 20, "shortcut": "projection"}, 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
        ({"depth": 20, "width": 4}, 4_286_026),
    ],
)
def test_residual_networks_have_the_published_numbers_of_weights(options: dict, count: int) -> None:
    assert parameter_count(create_network("resnet", **options)) == count


def test_dense_networks_have_the_weights_of_their_sizes() -> None:
    pairs = zip(AUTOENCODER_SIZES[:-1], AUTOENCODER_SIZES[1:])
    assert parameter_count(create_network("autoencoder")) == sum((i + 1) * o for i, o in pairs)
    assert parameter_count(create_network("mlp")) == 197 * 20 + 2 * 21 * 20 + 21 * 10


@pytest.mark.parametrize(
    ("name", "options", "inputs", "outputs"),
    [
        ("resnet", {"depth": 8}, (2, 3, 32, 32), (2, 10)),
        ("resnet", {"depth": 8, "shortcut": "projection", "width": 2}, (2, 3, 32, 32), (2, 10)),
        ("autoencoder", {"nonlinearity": "tanh"}, (2, 784), (2, 784)),
        ("mlp", {"nonlinearity": "sigmoid"}, (2, 196), (2, 10)),
    ],
)
def test_shapes(name: str, options: dict, inputs: tuple, outputs: tuple, rng: np.random.Generator) -> None:
    network = create_network(name, **options).set_train(False)
    result = network(ms.Tensor(rng.standard_normal(inputs), ms.float32)).asnumpy()
    assert result.shape == outputs
    assert np.isfinite(result).all()


def test_the_identity_shortcut_takes_every_second_pixel_and_pads_the_channels(
    rng: np.random.Generator,
) -> None:
    from model_zoo.resnet.network import IdentityShortcut

    x = rng.standard_normal((2, 4, 6, 6)).astype(np.float32)
    y = IdentityShortcut(4, 8, 2)(ms.Tensor(x)).asnumpy()
    np.testing.assert_array_equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, [0, 1, 6, 7]].any()


def test_the_code_of_the_auto_encoder_is_linear() -> None:
    cells = list(create_network("autoencoder").layers)
    kinds = "".join("D" if type(cell).__name__ == "Dense" else "-" for cell in cells)
    assert kinds == "D-D-D-DD-D-D-D"


@pytest.mark.parametrize("name", ["autoencoder", "mlp"])
@pytest.mark.parametrize(
    ("nonlinearity", "kind"), [("relu", "ReLU"), ("tanh", "Tanh"), ("sigmoid", "Sigmoid")]
)
def test_the_nonlinearity_is_the_one_that_was_asked_for(name: str, nonlinearity: str, kind: str) -> None:
    cells = create_network(name, nonlinearity=nonlinearity).layers
    assert {type(cell).__name__ for cell in cells} == {"Dense", kind}


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no network 'vgg'; there are resnet, autoencoder, mlp"):
        create_network("vgg")
    with pytest.raises(ValueError, match="6n \\+ 2"):
        create_network("resnet", depth=18)
    with pytest.raises(ValueError, match="shortcut"):
        create_network("resnet", shortcut="none")
    with pytest.raises(ValueError, match="nonlinearity"):
        create_network("mlp", nonlinearity="swish")
