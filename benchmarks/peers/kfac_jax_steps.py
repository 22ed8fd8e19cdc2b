"""Steps of kfac-jax and of optax's SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import kfac_jax
import numpy as np
import optax

from benchmarks.peers.problems import (
    CHANNELS,
    CODE_LAYER,
    DAMPING,
    KERNEL,
    LEARNING_RATE,
    MOMENTUM,
    SIDE,
    WIDTHS,
    Problem,
    intervals,
)

Weights = dict[str, dict[str, Any]]


def create_weights(name: str) -> Weights:
    """He's initialization, biases zero."""
    rng = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {}
    if name == "convnet":
        for index, (inputs, outputs) in enumerate(zip((3, *CHANNELS), CHANNELS)):
            shapes[f"conv{index}"] = (KERNEL, KERNEL, inputs, outputs)
        shapes["fc"] = (CHANNELS[-1] * SIDE * SIDE, 10)
    else:
        shapes = {f"dense{index}": sizes for index, sizes in enumerate(zip(WIDTHS, WIDTHS[1:]))}
    weights = {}
    for layer, shape in shapes.items():
        deviation = (2 / np.prod(shape[:-1])) ** 0.5
        weights[layer] = {
            "weight": jnp.asarray(deviation * rng.standard_normal(shape), "float32"),
            "bias": jnp.zeros(shape[-1:], "float32"),
        }
    return weights


def _pool(x: Any, index: int) -> Any:
    start, take = (0.0, jax.lax.add) if index else (-jnp.inf, jax.lax.max)
    pooled = jax.lax.reduce_window(x, start, take, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    return pooled / 9 if index else pooled


def loss(weights: Weights, batch: tuple[Any, Any]) -> Any:
    """The loss of either problem, mean over samples."""
    x, targets = batch
    if x.ndim == 2:
        for index in range(len(WIDTHS) - 1):
            layer = weights[f"dense{index}"]
            x = x @ layer["weight"] + layer["bias"]
            if index not in (CODE_LAYER, len(WIDTHS) - 2):
                x = jax.nn.relu(x)
        kfac_jax.register_multi_bernoulli_predictive_distribution(x, targets=targets)
        return optax.sigmoid_binary_cross_entropy(x, targets).sum() / len(x)
    for index in range(len(CHANNELS)):
        layer = weights[f"conv{index}"]
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, layer["weight"], (1, 1), "SAME", dimension_numbers=numbers)
        x = _pool(jax.nn.relu(x + layer["bias"]), index)
    logits = x.reshape(len(x), -1) @ weights["fc"]["weight"] + weights["fc"]["bias"]
    kfac_jax.register_softmax_cross_entropy_loss(logits, targets=targets)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


class Sgd:
    """Momentum SGD by optax, compiled as a whole."""

    def __init__(self, weights: Weights, batch: tuple[Any, Any]) -> None:
        rule = optax.sgd(LEARNING_RATE, MOMENTUM)
        self.weights, self.state, self.batch = weights, rule.init(weights), batch

        def step(weights: Weights, state: Any, batch: tuple[Any, Any]) -> tuple[Weights, Any, Any]:
            value, gradients = jax.value_and_grad(loss)(weights, batch)
            updates, state = rule.update(gradients, state)
            return optax.apply_updates(weights, updates), state, value

        self.step = jax.jit(step, donate_argnums=(0, 1))

    def __call__(self) -> float:
        """Takes one step and waits for the loss and the weights."""
        self.weights, self.state, value = self.step(self.weights, self.state, self.batch)
        jax.block_until_ready(self.weights)
        return float(value)


class KfacJax:
    """kfac-jax's optimizer with fixed learning rate, momentum and damping."""

    def __init__(self, weights: Weights, batch: tuple[Any, Any], kind: str, mode: str) -> None:
        factors, inverses = intervals(kind)
        self.optimizer = kfac_jax.Optimizer(
            jax.value_and_grad(loss),
            l2_reg=0.0,
            estimation_mode=mode,
            num_burnin_steps=0,
            curvature_update_period=factors,
            inverse_update_period=inverses,
        )
        self.key = jax.random.PRNGKey(0)
        self.weights, self.batch = weights, batch
        self.state = self.optimizer.init(weights, self.key, batch)

    def __call__(self) -> float:
        """Takes one step and waits for the loss and the weights."""
        self.key, key = jax.random.split(self.key)
        self.weights, self.state, statistics = self.optimizer.step(
            self.weights,
            self.state,
            key,
            batch=self.batch,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            damping=DAMPING,
        )
        jax.block_until_ready(self.weights)
        return float(statistics["loss"])


def create_step(library: str, problem: Problem, kind: str) -> Callable[[], float]:
    """A training step.

    Args:
        library: "kfac-jax" for its default estimate of the curvature, "kfac-jax empirical" for the empirical
            Fisher.
        problem: the network and the batch.
        kind: one of KINDS.

    Returns:
        A function that takes one step and waits for the loss.
    """
    inputs = problem.inputs.transpose(0, 2, 3, 1) if problem.classifies else problem.inputs
    batch = (jnp.asarray(inputs), jnp.asarray(problem.targets))
    weights = create_weights(problem.name)
    if kind == "sgd":
        return Sgd(weights, batch)
    mode = "fisher_empirical" if library.endswith("empirical") else "ggn_curvature_prop"
    return KfacJax(weights, batch, kind, mode)
