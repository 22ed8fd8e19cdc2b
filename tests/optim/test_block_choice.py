"""The option `blocks`: which block a layer gets, and what Parameters outside layers get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn

import ms_kfac
from ms_kfac.capture import Layer
from ms_kfac.capture.dense import describe_dense
from ms_kfac.curvature import (
    BlockSplitBlock,
    CurvatureBlock,
    DiagonalBlock,
    EigenbasisBlock,
    EmbeddingBlock,
    KroneckerBlock,
    ShermanMorrisonBlock,
    SKFACBlock,
    SKFACOptions,
    TraceRestrictedBlock,
    UnitWiseBlock,
)
from ms_kfac.curvature.automatic_damping import AutomaticDamping
from tests.oracle.mixed import MixedReference
from tests.oracle.momentum import Momentum
from tests.support.bank import tensor
from tests.support.loops import cell_step, cross_entropy, functional_step, gradient_function, run
from tests.support.methods import INTERVALS, METHODS
from tests.support.networks import SmallNet, batches, small_net_reference, weights_of

EVERY_STEP = {"factor_interval": 1, "inverse_interval": 1}


class Scaled(SmallNet):
    """With a Parameter outside all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Parameter(tensor(np.array(1.5)), name="scale")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return super().construct(x) * self.scale


def blocks_of(optimizer: Any) -> dict[str, type[CurvatureBlock]]:
    return {block.layer_name: type(block) for block in optimizer.blocks}


def test_patterns_come_before_kinds_and_kinds_before_the_default() -> None:
    blocks = {"conv2": TraceRestrictedBlock, "convolution": DiagonalBlock, "default": SKFACBlock}
    optimizer = ms_kfac.KFAC(SmallNet(), 0.1, blocks=blocks)
    assert blocks_of(optimizer) == {"conv1": DiagonalBlock, "conv2": TraceRestrictedBlock, "head": SKFACBlock}


def test_a_method_keeps_its_block_where_nothing_is_said() -> None:
    optimizer = ms_kfac.SMKFAC(SmallNet(), 0.1, blocks={"dense": KroneckerBlock})
    expected = {"conv1": ShermanMorrisonBlock, "conv2": ShermanMorrisonBlock, "head": KroneckerBlock}
    assert blocks_of(optimizer) == expected


def test_first_order_by_pattern_and_normalization_by_kind() -> None:
    blocks = {"conv.": "first_order", "normalization": UnitWiseBlock, "other": DiagonalBlock}
    optimizer = ms_kfac.KFAC(Scaled(), 0.1, blocks=blocks)
    assert blocks_of(optimizer) == {"norm": UnitWiseBlock, "head": KroneckerBlock, "scale": DiagonalBlock}
    assert "blocks['conv.'] is 'first_order'" in optimizer.summary()


def test_skip_keeps_a_cell_out_of_other() -> None:
    optimizer = ms_kfac.KFAC(Scaled(), 0.1, skip=["norm"], blocks={"other": DiagonalBlock})
    assert set(blocks_of(optimizer)) == {"conv1", "conv2", "head", "scale"}


@pytest.mark.parametrize(
    "options", [{"skip": ["^scale$"]}, {"blocks": {"^scale$": "first_order", "other": DiagonalBlock}}]
)
def test_lone_parameter_is_skipped_by_its_name(options: dict[str, Any]) -> None:
    optimizer = ms_kfac.KFAC(Scaled(), 0.1, **{"blocks": {"other": DiagonalBlock}, **options})
    assert set(blocks_of(optimizer)) == {"conv1", "conv2", "head", "norm.gamma", "norm.beta"}


class Tied(nn.Cell):
    """A head that is the transposed table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.hidden = nn.Dense(4, 4)
        self.head = nn.Dense(4, 5, has_bias=False)
        self.head.weight = self.table.embedding_table


def test_a_tied_parameter_that_one_cell_skips_has_no_block() -> None:
    blocks = {"other": DiagonalBlock}
    assert set(blocks_of(ms_kfac.KFAC(Tied(), 0.1, skip=["head"], blocks=blocks))) == {"hidden"}
    assert len(ms_kfac.KFAC(Tied(), 0.1, blocks=blocks).blocks) == 2


class Projection(nn.Dense):
    """A layer of a custom kind."""


@ms_kfac.register_layer(Projection)
def describe_projection(name: str, cell: nn.Cell) -> Layer | str:
    described = describe_dense(name, cell)
    return described if isinstance(described, str) else replace(described, kind=KIND["kind"])


KIND = {"kind": "proj"}


class Projections(nn.Cell):
    """A layer whose name holds another one's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first_proj = nn.Dense(4, 4)
        self.last = Projection(4, 4)


def test_a_custom_kind_is_no_pattern() -> None:
    optimizer = ms_kfac.KFAC(Projections(), 0.1, blocks={"proj": DiagonalBlock})
    assert blocks_of(optimizer) == {"first_proj": KroneckerBlock, "last": DiagonalBlock}


def test_a_layer_can_not_be_of_the_kind_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KIND, "kind", "other")
    with pytest.raises(ValueError, match="the kind of last must not be 'other'"):
        ms_kfac.KFAC(Projections(), 0.1)


def test_without_a_counted_pass_nothing_is_taken(mode: int) -> None:
    net = Scaled()
    optimizer = ms_kfac.KFAC(net, 0.1, blocks={"other": DiagonalBlock}, **EVERY_STEP)
    step = functional_step(net, optimizer, cross_entropy())
    (x, y), _ = batches(2)
    step(tensor(x), tensor(y))
    before = optimizer.factors("scale")["s"], optimizer.blocks[-1].weights.asnumpy()
    with pytest.warns(UserWarning, match="no backward pass reached the statistics of layers"):
        optimizer(tuple(tensor(np.ones(parameter.shape)) for parameter in optimizer.parameters))
    np.testing.assert_array_equal(optimizer.factors("scale")["s"], before[0])
    np.testing.assert_array_equal(optimizer.blocks[-1].weights.asnumpy(), before[1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_reason_of_a_parameter_without_a_batch_is_no_bypassed_layer() -> None:
    net = Scaled()
    optimizer = ms_kfac.KFAC(net, 0.1, blocks={"other": DiagonalBlock}, **EVERY_STEP)
    optimizer(tuple(tensor(np.ones(parameter.shape)) for parameter in optimizer.parameters))
    (line,) = [line for line in optimizer.summary(every_layer=True).splitlines() if " scale, " in line]
    assert " norm.gamma, norm.beta " in line
    assert line.endswith("its gradients held NaN or Inf, or no samples were counted")


def test_a_float16_parameter_has_a_block(mode: int) -> None:
    factors = []
    for kind in (ms.float32, ms.float16):
        net = Scaled()
        net.scale = Parameter(ms.Tensor(1.5, kind), name="scale")
        optimizer = ms_kfac.KFAC(net, 0.1, blocks={"other": DiagonalBlock}, **EVERY_STEP)
        step = functional_step(net, optimizer, cross_entropy())
        run(step, batches(2))
        assert net.scale.dtype == kind
        assert float(net.scale.asnumpy()) != 1.5
        factors.append(optimizer.factors("scale")["s"])
    # A float16 has 11 bits.
    np.testing.assert_allclose(factors[1], factors[0], rtol=1e-2)


def test_a_pattern_gives_a_parameter_outside_layers_a_block() -> None:
    optimizer = ms_kfac.KFAC(Scaled(), 0.1, blocks={"^scale$|conv1": DiagonalBlock})
    assert blocks_of(optimizer) == {
        "conv1": DiagonalBlock,
        "conv2": KroneckerBlock,
        "head": KroneckerBlock,
        "scale": DiagonalBlock,
    }


def test_a_pattern_for_layers_leaves_other_parameters() -> None:
    optimizer = ms_kfac.KFAC(Scaled(), 0.1, blocks={"^(head|scale)$": TraceRestrictedBlock})
    assert blocks_of(optimizer) == {
        "conv1": KroneckerBlock,
        "conv2": KroneckerBlock,
        "head": TraceRestrictedBlock,
    }


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_other_parameters_take_the_reference_steps(mode: int, reduction: str) -> None:
    """Of gamma and beta the square of the summed gradient over N, moving-averaged."""
    data = batches(3)
    net = SmallNet()
    expected = weights_of(net)
    reference = MixedReference(
        small_net_reference(), Momentum(0.9), 0.03, factor_decay=0.4, kl_clip=1e-2, squares=("norm",)
    )
    optimizer = ms_kfac.KFAC(
        net,
        0.1,
        damping=0.03,
        factor_decay=0.4,
        kl_clip=1e-2,
        reduction=reduction,
        blocks={"other": DiagonalBlock},
        **EVERY_STEP,
    )
    step = cell_step(net, optimizer, cross_entropy(reduction))
    for x, y in data:
        _, expected = reference.step(expected, x, y, 0.1)
        step(tensor(x), tensor(y))
    for name, value in weights_of(net).items():
        # Products of float32 matrices with conditions below 1e3.
        np.testing.assert_allclose(value, expected[name], rtol=2e-4, atol=2e-5, err_msg=name)
    assert optimizer.refreshes()["refused"] == 0


@pytest.mark.parametrize("announced", [False, True])
def test_micro_batches_count_as_one_batch(mode: int, announced: bool) -> None:
    """Each with its mean loss: gradients averaged, or losses divided by what accumulation_steps says."""
    (x, y), _ = batches(2)
    found = []
    for count in (1, 2):
        net = Scaled()
        options = {"accumulation_steps": count} if announced else {}
        optimizer = ms_kfac.KFAC(net, 0.1, blocks={"other": DiagonalBlock}, **EVERY_STEP, **options)
        of_loss, of_sum = (1.0 / count, 1.0) if announced else (1.0, 1.0 / count)
        gradient = gradient_function(net, optimizer, cross_entropy(), of_loss)
        # BatchNorm would see other batches.
        net.norm.set_train(False)
        size = len(x) // count
        parts = [slice(i * size, (i + 1) * size) for i in range(count)]
        for _ in range(2):
            passes = [gradient(tensor(x[part]), tensor(y[part]))[1] for part in parts]
            optimizer(tuple(of_sum * sum(own[1:], own[0]) for own in zip(*passes)))
            found.append((optimizer.factors("scale")["s"], optimizer.blocks[-1].weights.asnumpy()))
    # Gradients of float32; unannounced, the weights of the second step differ, but not its samples.
    np.testing.assert_allclose(found[2][0], found[0][0], rtol=1e-4)
    for whole, parted in zip(found[:2], found[2:]):
        np.testing.assert_allclose(parted[1], whole[1], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_blocks_of_others(method: str) -> None:
    kind, options = METHODS[method]
    blocks = {"head": DiagonalBlock, "conv2": partial(TraceRestrictedBlock), "other": DiagonalBlock}
    net = Scaled()
    optimizer = kind(net, 0.05, blocks=blocks, **options)
    run(cell_step(net, optimizer, cross_entropy()), batches(4))
    assert optimizer.factors("scale")["s"] > 0
    assert (optimizer.factors("head")["s"] > 0).any()
    assert all(np.isfinite(weight).all() for weight in weights_of(net).values())


def test_a_bad_gradient_is_refused_and_counted() -> None:
    net = Scaled()
    optimizer = ms_kfac.KFAC(net, 0.1, verify="off", blocks={"other": DiagonalBlock}, **INTERVALS)
    step = functional_step(net, optimizer, cross_entropy())
    (x, y), _ = batches(2)
    step(tensor(x), tensor(y))
    before = optimizer.factors("scale")["s"]
    with pytest.warns(UserWarning, match="step 1 was skipped: NaN in the gradient of .*scale"):
        step(tensor(np.full_like(x, np.nan)), tensor(y))
        ms.runtime.synchronize()
    np.testing.assert_array_equal(optimizer.factors("scale")["s"], before)
    assert optimizer.refreshes()["refused"] == 1


def test_unmatched_pattern_gives_a_warning() -> None:
    words = "no layer that can have a block has 'haed' in its name"
    for method in (ms_kfac.KFAC, ms_kfac.SMKFAC):
        with pytest.warns(UserWarning, match=words) as told:
            method(SmallNet(), 0.1, blocks={"haed": DiagonalBlock})
        assert [warning.filename for warning in told] == [__file__]


def half_made(layer: Any, *, prefix: str, **arguments: Any) -> CurvatureBlock:
    class HalfMade(DiagonalBlock):
        def __init__(self) -> None:
            CurvatureBlock.__init__(self, layer, prefix=prefix)

    return HalfMade()


def no_block(layer: Any, **arguments: Any) -> Any:
    return nn.ReLU()


class Three(DiagonalBlock):
    """Stages more than what is known of a Parameter outside layers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.staged = (*self.staged, self.weights)


@pytest.mark.parametrize(
    ("blocks", "options", "error", "words"),
    [
        ([], {}, TypeError, "blocks must be a dict"),
        ({3: DiagonalBlock}, {}, TypeError, "blocks must be a dict"),
        ({"dense": "diagonal"}, {}, TypeError, r"blocks\['dense'\] must be a subclass of CurvatureBlock"),
        ({"dense": ms_kfac.SKFAC}, {}, TypeError, r"blocks\['dense'\] must be a subclass of CurvatureBlock"),
        ({"dense": nn.ReLU()}, {}, TypeError, r"blocks\['dense'\] must be a subclass of CurvatureBlock"),
        ({"dense": EmbeddingBlock}, {}, TypeError, "EmbeddingBlock does not support head"),
        ({"conv2": UnitWiseBlock}, {}, TypeError, "UnitWiseBlock does not support conv2"),
        (
            {"conv2": BlockSplitBlock},
            {},
            TypeError,
            r"does not support conv2 \(kind 'convolution', 2 groups\)",
        ),
        ({"dense": partial(BlockSplitBlock, split=0)}, {}, ValueError, "split must be"),
        (
            {"dense": partial(ShermanMorrisonBlock, full_refreshes=0)},
            {},
            ValueError,
            "full_refreshes must be",
        ),
        ({"con(v": DiagonalBlock}, {}, ValueError, "must hold regular expressions, got"),
        ({"dense": EigenbasisBlock}, {}, TypeError, "EigenbasisBlock must be used before it is refreshed"),
        ({"dense": no_block}, {}, TypeError, r"blocks\['dense'\] must make a CurvatureBlock, got ReLU"),
        ({"dense": half_made}, {}, TypeError, "must create operator, staged, record, weights, a statistic"),
        (
            {"other": KroneckerBlock},
            {},
            TypeError,
            r"KroneckerBlock does not support norm.gamma \(kind 'other'\)",
        ),
        ({"other": Three}, {}, TypeError, "staged must be a batch and the record, got 3"),
        ({"other": DiagonalBlock}, {"fisher": "sampled"}, ValueError, "with fisher='sampled'"),
        (
            {"gamma": DiagonalBlock},
            {"fisher": "sampled"},
            ValueError,
            r"blocks\['gamma'\] must be 'first_order'",
        ),
        ({"other": DiagonalBlock}, {"skip": ["conv", "head"]}, ValueError, "there is none"),
    ],
)
def test_refused(blocks: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ms_kfac.KFAC(SmallNet(), 0.1, blocks=blocks, **options)


def skfac_options(**options: Any) -> Callable[..., Any]:
    return lambda layer, **arguments: SKFACBlock(layer, skfac=SKFACOptions(**options), **arguments)


def automatic(*values: Any) -> Callable[..., Any]:
    return lambda layer, **arguments: TraceRestrictedBlock(
        layer, automatic=AutomaticDamping(*values), **arguments
    )


@pytest.mark.parametrize(
    ("block", "error", "words"),
    [
        (partial(ShermanMorrisonBlock, full_refreshes=2.5), TypeError, "full_refreshes must be an int"),
        (partial(ShermanMorrisonBlock, interval=0), ValueError, "interval must be an int of at least 1"),
        (partial(ShermanMorrisonBlock, interval=1.5), TypeError, "interval must be an int of at least 1"),
        (partial(ShermanMorrisonBlock, weights=0.1), TypeError, "weights must be a pair of numbers"),
        (partial(ShermanMorrisonBlock, weights=(0.1,)), TypeError, "weights must be a pair of numbers"),
        (partial(ShermanMorrisonBlock, weights=(0.1, 0.0)), ValueError, r"weights must be a number in \(0"),
        (partial(ShermanMorrisonBlock, weights=(-1.0, 0.1)), ValueError, r"weights must be a number in \(0"),
        (partial(ShermanMorrisonBlock, weights=("a", 0.1)), TypeError, r"weights must be a number in \(0"),
        (partial(ShermanMorrisonBlock, rescale="trace"), TypeError, "rescale must be True or False"),
        (partial(BlockSplitBlock, split=2.5), TypeError, "split must be an int of at least 1"),
        (partial(SKFACBlock, skfac="sum"), TypeError, "skfac must be an SKFACOptions"),
        (skfac_options(samples=2.5), TypeError, "samples must be an int of at least 1"),
        (skfac_options(spatial="max"), ValueError, "spatial must be one of 'sum'"),
        (partial(TraceRestrictedBlock, automatic=1.0), TypeError, "automatic must be an AutomaticDamping"),
        (automatic(0.0, True, 100.0), ValueError, r"nu must be a number in \(0"),
        (automatic(1.0, "printed", 100.0), TypeError, "homogeneous must be True or False"),
        (automatic(1.0, True, 0.5), ValueError, r"max_expansion must be a number in \[1"),
        (automatic(1.0, True, 100.0), TypeError, "expansion must be a Parameter"),
    ],
)
def test_arguments_of_blocks_are_checked_as_those_of_their_optimizers(
    block: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ms_kfac.KFAC(SmallNet(), 0.1, blocks={"head": block})
