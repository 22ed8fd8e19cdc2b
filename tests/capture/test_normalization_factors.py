"""F, A and G of normalisation layers and embedding tables in a net, and what `precondition` makes of them."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import mint, nn

import ms_kfac
from ms_kfac.capture.layer_kinds import describe_layer
from tests.oracle.preconditioner import kronecker_solve
from tests.oracle.unit_wise import unit_wise_solve
from tests.support.bank import Bank, backward, linear_loss, randomise, tensor
from tests.support.normalization import (
    VOCABULARY,
    WIDTH,
    affine_parameters,
    embedding_factors,
    embeddings,
    more_normalizations,
    normalizations,
)

SAMPLES, DAMPING = 5, 0.05


@pytest.mark.parametrize(
    ("sharing", "reduction", "loss_scale"), [("expand", "mean", 1.0), ("reduce", "sum", 1024.0)]
)
def test_two_micro_batches_in_every_geometry(
    mode: int, sharing: str, reduction: str, loss_scale: float, rng: np.random.Generator
) -> None:
    """Statistics are means over the samples of both micro-batches.

    A micro-batch normalises by its own moments, so for batch normalisation they are those of two batches and
    not of one batch of twice the size; for the others it makes no difference, and the oracle sees one batch.
    """
    tables, cases = embeddings(), normalizations()
    # A table comes first: reduction="sum" counts samples there, on ids.
    net = Bank([table for table, _ in tables] + [case.layer for case in cases])
    randomise(net, rng)
    net.set_train(True)
    micro_batches = [
        [rng.integers(0, VOCABULARY, (SAMPLES, *axes)).astype(np.int32) for _, axes in tables]
        + [(2 + rng.standard_normal((SAMPLES, *case.shape))).astype(np.float32) for case in cases]
        for _ in range(2)
    ]
    shapes = [(SAMPLES, *axes, WIDTH) for _, axes in tables] + [(SAMPLES, *case.shape) for case in cases]
    # Same sign within a sample and channel, mostly: else ∇γ and ∇β would be all cancellation.
    c = [(1 + rng.standard_normal(shape)).astype(np.float32) for shape in shapes]
    optimizer = ms_kfac.KFAC(
        net,
        0.1,
        normalization="unit_wise",
        damping=DAMPING,
        sharing=sharing,
        reduction=reduction,
        loss_scale=loss_scale,
        accumulation_steps=2,
    )
    # Announced micro-batches: each loss is divided by their number.
    scale = 0.5 * loss_scale / (SAMPLES if reduction == "mean" else 1)
    gradient = ms.value_and_grad(linear_loss(net, c, scale), None, optimizer.parameters)
    parts = [gradient(*(tensor(x) for x in batch))[1] for batch in micro_batches]
    gradients = tuple((a + b) * (1 / loss_scale) for a, b in zip(*parts))
    optimizer(tuple(gradient * loss_scale for gradient in gradients))
    values = {
        p.name: (before.asnumpy(), after.asnumpy())
        for p, before, after in zip(optimizer.parameters, gradients, optimizer.precondition(gradients))
    }

    for i in range(len(tables)):
        ids = np.concatenate([batch[i] for batch in micro_batches])
        A, G = embedding_factors(ids, np.concatenate([c[i], c[i]]), sharing)
        diagonal = np.diag(A)
        if sharing == "expand":
            np.testing.assert_array_equal(A, np.diag(diagonal))
        found = optimizer.factors(f"layers.{i}")
        # Counts are whole numbers below 2^24; G sums at most 60 float32 terms of order 1.
        np.testing.assert_allclose(found["A"], diagonal, rtol=1e-6, err_msg=f"table {i}")
        np.testing.assert_allclose(found["G"], G, rtol=1e-5, atol=1e-6, err_msg=f"table {i}")
        dW, U = values[f"layers.{i}.embedding_table"]
        expected = kronecker_solve(dW.T, np.diag(diagonal), G, DAMPING).T
        # Condition of the damped factors below 1e3, times float32 rounding.
        np.testing.assert_allclose(U, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for i, case in enumerate(cases, start=len(tables)):
        if case.batch_moments:
            F = sum(case.fisher(batch[i], c[i]) for batch in micro_batches) / 2
        else:
            x = np.concatenate([batch[i] for batch in micro_batches])
            F = case.fisher(x, np.concatenate([c[i], c[i]]))
        found = optimizer.factors(f"layers.{i}{case.name}")["F"]
        assert found.dtype == np.float32
        # Sums of at most 60 terms of order 1 to 10; small entries are differences of such sums.
        error = f"layer {i}: {type(case.layer).__name__} {case.shape}"
        np.testing.assert_allclose(found, F, rtol=1e-5, atol=1e-5 * np.abs(F).max(), err_msg=error)
        (d_gamma, u_gamma), (d_beta, u_beta) = (
            values[f"layers.{i}{case.name}.{letter}"] for letter in ("gamma", "beta")
        )
        assert u_gamma.shape == d_gamma.shape
        assert u_beta.shape == d_beta.shape
        U = unit_wise_solve(d_gamma.reshape(-1), d_beta.reshape(-1), F, DAMPING)
        # Condition of F_c + λI up to 1e3.
        tolerance = {"rtol": 1e-4, "atol": 2e-4 * np.abs(U).max(), "err_msg": error}
        np.testing.assert_allclose(u_gamma.reshape(-1), U[:, 0], **tolerance)
        np.testing.assert_allclose(u_beta.reshape(-1), U[:, 1], **tolerance)


def test_group_instance_and_mint_normalizations_and_scales(mode: int, rng: np.random.Generator) -> None:
    cases = more_normalizations()
    net = Bank([case.layer for case in cases])
    randomise(net, rng)
    net.set_train(True)
    inputs = [(2 + rng.standard_normal((SAMPLES, *case.shape))).astype(np.float32) for case in cases]
    c = [(1 + rng.standard_normal(x.shape)).astype(np.float32) for x in inputs]
    optimizer = ms_kfac.KFAC(net, 0.1, normalization="unit_wise", damping=DAMPING, verify="off")
    for case in cases:
        if case.stands_in is not None:
            case.layer.__dict__["untapped_construct"] = case.stands_in
    gradients = backward(linear_loss(net, c), optimizer.parameters, *inputs)
    optimizer(gradients)
    values = {
        id(p): (before.asnumpy().reshape(-1), after.asnumpy())
        for p, before, after in zip(optimizer.parameters, gradients, optimizer.precondition(gradients))
    }
    for i, case in enumerate(cases):
        F = case.fisher(inputs[i], c[i])
        error = f"layer {i}: {type(case.layer)} {case.shape}"
        # Sums of at most 60 terms of order 1 to 10; small entries are differences of such sums.
        found = optimizer.factors(f"layers.{i}")["F"]
        np.testing.assert_allclose(found, F, rtol=1e-5, atol=2e-5 * np.abs(F).max(), err_msg=error)
        own = [p for p in affine_parameters(case.layer) if p is not None]
        d = np.stack([values[id(p)][0] for p in own], axis=1)
        U = np.linalg.solve(F + DAMPING * np.eye(len(own)), d[..., None])[..., 0]
        for column, parameter in enumerate(own):
            u = values[id(parameter)][1]
            assert u.shape == parameter.shape, error
            # Condition of F_c + λI up to 1e3.
            tolerance = {"rtol": 1e-4, "atol": 2e-4 * np.abs(U).max(), "err_msg": error}
            np.testing.assert_allclose(u.reshape(-1), U[:, column], **tolerance)


def test_verification_sees_group_norms_and_scales(mode: int, rng: np.random.Generator) -> None:
    """The layers with CPU kernels, whose gradients MindSpore computes."""
    cases = [case for case in more_normalizations() if case.stands_in is None]
    net = Bank([case.layer for case in cases])
    randomise(net, rng)
    net.set_train(True)
    inputs = [rng.standard_normal((SAMPLES, *case.shape)).astype(np.float32) for case in cases]
    c = [rng.standard_normal(x.shape).astype(np.float32) for x in inputs]
    optimizer = ms_kfac.KFAC(net, 0.1, normalization="unit_wise", damping=DAMPING)
    optimizer(backward(linear_loss(net, c), optimizer.parameters, *inputs))
    assert optimizer.summary().count("verified") == 1 + len(cases)


@pytest.mark.parametrize("kind", [nn.SyncBatchNorm, mint.nn.SyncBatchNorm])
def test_moments_of_several_devices_stay_first_order(kind: Any) -> None:
    layer = kind(2)
    layer.is_global, layer.world_size = True, 2
    described = describe_layer("norm", layer)
    assert isinstance(described, str)
    assert "several devices" in described
