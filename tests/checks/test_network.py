"""Properties of a network: each with one that lacks it, and a near miss that has it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import X, Y, apply, init, squared

from nnref import checks

RANDOM = np.random.default_rng(0)
SERIES = RANDOM.normal(size=(40, 6, 2)).astype(np.float32)
SUMS = SERIES.cumsum(1)
TASK = {"init": init, "apply": apply, "loss": squared, "train": (X, Y)}


def two_layers(key):
    first, second = jax.random.split(key)
    return {
        "first": 0.5 * jax.random.normal(first, (3, 16)),
        "bias": jnp.zeros(16),
        "second": 0.2 * jax.random.normal(second, (16, 1)),
    }


def hidden(params, x):
    return jax.nn.relu(x @ params["first"] + params["bias"]) @ params["second"]


def hidden_relu(params, x):
    return jax.nn.relu(hidden(params, x))


def square(key):
    return {"w": jax.random.normal(key, (2, 2)) / 2}


def backwards(params, x):
    return jnp.cumsum(x @ params["w"], 1)


def both_ways(params, x):
    return jnp.cumsum((x @ params["w"])[:, ::-1], 1)


def dropped(params, x, key, train):
    kept = jax.random.bernoulli(key, 0.5, x.shape) if train else 1
    return (x * kept) @ params["w"]


def dropped_alike(params, x, key, train):
    kept = jax.random.bernoulli(jax.random.key(1), 0.5, x.shape) if train else 1
    return (x * kept) @ params["w"]


def drawn_by_python(params, x):
    return x @ params["w"] + float(np.random.default_rng().normal())


def mean_of_steps(params, x):
    return x.mean(1) @ params["w"]


def sum_of_steps(params, x):
    return x.sum(1) @ params["w"]


def scaled_in_training(params, x, train):
    return (2.0 if train else 1.0) * (x @ params["w"])


def stopped(params, x):
    return jax.lax.stop_gradient(x @ params["w"])


@jax.custom_jvp
def doubled(z):
    return 2 * z


doubled.defjvp(lambda primals, tangents: (2 * primals[0], 20 * tangents[0]))


def wrong_slope(params, x):
    return doubled(x @ params["w"])


def root(outputs, y):
    return jnp.mean(jnp.sqrt((outputs - y) ** 2 + 1e-9))


def cosine(params, x):
    return (x / jnp.linalg.norm(x, axis=-1, keepdims=True)) @ params["w"]


def of_series(**changes):
    padded = np.array(SERIES)
    padded[:, 4:] = 0
    task = {"init": square, "loss": squared, "train": (SERIES, SUMS)} | changes
    if changes.pop("padded", False):
        task.pop("padded")
        task["train"] = (padded, padded.sum(1))
    return task


FROZEN = optax.multi_transform(
    {"a": optax.adam(1e-2), "b": optax.set_to_zero()}, {"first": "b", "bias": "b", "second": "a"}
)
BLIND = {"optimizer": FROZEN, "init": two_layers, "apply": hidden}
# The property, what changes the task so that it fails, and what changes it and is healthy.
CASES = {
    "overfits_one_batch": ({"apply": stopped}, {}),
    "loss_at_start": ({"init": lambda key: {"w": 100 + init(key)["w"]}}, {}),
    "loss_fits_outputs": (
        {"apply": lambda params, x: jax.nn.relu(x @ params["w"])},
        {"apply": lambda params, x: 10 * jnp.tanh(x @ params["w"] / 10)},
    ),
    "gradients_match_finite_differences": ({"apply": wrong_slope}, {}),
    "all_parameters_train": (BLIND, {"init": two_layers, "apply": hidden}),
    "rows_are_independent": (
        {"apply": lambda params, x: jax.nn.softmax(x @ params["w"], 0)},
        {"apply": lambda params, x: jax.nn.softmax(x @ params["w"], 1) + x @ params["w"]},
    ),
    "is_causal": (of_series(apply=both_ways), of_series(apply=backwards)),
    "train_and_eval_modes_differ_only_as_told": (
        {"apply": scaled_in_training},
        {"apply": dropped},
    ),
    "padding_is_ignored": (
        of_series(apply=mean_of_steps, padded=True),
        of_series(apply=sum_of_steps, padded=True),
    ),
    "no_dead_units_at_start": (
        {"init": lambda key: two_layers(key) | {"bias": jnp.full(16, -50.0)}, "apply": hidden},
        {"init": two_layers, "apply": hidden},
    ),
    "loss_is_a_mean": (
        {"loss": lambda outputs, y: jnp.sum((outputs - y) ** 2)},
        {"loss": lambda outputs, y: jnp.mean((outputs - y) ** 2)},
    ),
    "key_matters": ({"apply": dropped_alike}, {"apply": dropped}),
    "same_seed_same_bits": ({"apply": drawn_by_python}, {}),
    "survives_extreme_batches": ({"apply": cosine}, {"loss": root}),
    "signal_at_start": ({"init": lambda key: {"w": jnp.full((3, 1), jnp.nan)}}, {}),
    "learns": ({"optimizer": optax.sgd(1e-6)}, {"optimizer": optax.adam(0.1)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_property_fails_with_its_finding_or_gives_its_figures(name):
    ask = getattr(checks, name)
    broken, healthy = CASES[name]
    with pytest.raises(AssertionError, match=rf"(?s){name}: .*where .*remedy"):
        ask(**TASK | broken)
    assert isinstance(ask(**TASK | healthy), dict)


def test_figures_are_those_of_the_network():
    assert checks.overfits_one_batch(**TASK)["skill on 2 rows"] > 0.99
    assert checks.all_parameters_train(**TASK)["parameters"] == 3
    assert checks.is_causal(**TASK | CASES["is_causal"][1])["change with later steps"] == 0


@pytest.mark.parametrize("name", ["loss_fits_outputs", "overfits_one_batch"])
def test_what_looks_odd_and_learns_is_no_fault(name):
    """ReLU before targets that are hardly ever negative; targets out of reach of a few steps."""
    mostly = np.where(Y > 0, Y, -1e-2 * np.abs(Y))
    odd = {
        "loss_fits_outputs": {"apply": hidden_relu, "init": two_layers, "train": (X, mostly)},
        "overfits_one_batch": {"train": (X, 1e4 * Y)},
    }[name]
    trained = {"optimizer": optax.sgd(0.1), "epochs": 60}
    ask = getattr(checks, name)
    with pytest.raises(AssertionError, match=name):
        ask(**TASK | trained | odd)
    assert ask(strict=False, **TASK | trained | odd)
    if name == "overfits_one_batch":
        with pytest.raises(AssertionError, match=name):
            ask(strict=False, **TASK | trained | odd | {"optimizer": optax.sgd(1e-9)})


def deep(key):
    return [jax.random.normal(each, (3, 3)) for each in jax.random.split(key, 9)] + [
        jax.random.normal(key, (3, 1))
    ]


def through_sigmoids(params, x):
    for kernel in params[:-1]:
        x = jax.nn.sigmoid(x @ kernel)
    return x @ params[-1]


def through_tanh_beside(params, x):
    for kernel in params[:-1]:
        x = x + 0.1 * jnp.tanh(x @ kernel)
    return x @ params[-1]


def sure(outputs, y):
    return -jnp.mean(jnp.log(jnp.where(y > 0, outputs, 1 - outputs)))


def sure_of_logits(outputs, y):
    return jnp.mean(jax.nn.softplus(jnp.where(y > 0, -outputs, outputs)))


@pytest.mark.parametrize(
    ("name", "odd", "sound"),
    [
        (
            "signal_at_start",
            {"init": deep, "apply": through_sigmoids},
            {"init": deep, "apply": through_tanh_beside},
        ),
        (
            "survives_extreme_batches",
            {"apply": lambda params, x: jax.nn.sigmoid(x @ params["w"]), "loss": sure},
            {"loss": sure_of_logits},
        ),
    ],
)
def test_what_may_stop_a_network_is_a_fault_where_it_does_not_learn(name, odd, sound):
    signs = {"train": (X, (Y > 0).astype(np.float32)), "optimizer": optax.sgd(1e-9)}
    ask = getattr(checks, name)
    with pytest.raises(AssertionError, match=name):
        ask(strict=False, **TASK | signs | odd)
    assert ask(**TASK | signs | sound)


def test_what_is_meant_to_stay_is_said():
    moves = checks.all_parameters_train(frozen=("first", "bias"), **TASK | BLIND)
    assert moves["largest move"] > 0


def test_units_that_start_alike_train_only_if_their_steps_differ():
    equal = {"init": lambda key: jax.tree.map(lambda leaf: 0 * leaf + 0.1, two_layers(key))}
    with pytest.raises(AssertionError, match="(?s)all 16 units start with the same weights.*first"):
        checks.all_parameters_train(**TASK | {"apply": hidden} | equal)
    apart = {"init": lambda key: two_layers(key) | {"first": jnp.full((3, 16), 0.1)}}
    assert checks.all_parameters_train(**TASK | {"apply": hidden} | apart)


def test_what_is_worth_knowing_passes_where_it_is_not_strict():
    assert checks.all_parameters_train(strict=False, **TASK | BLIND)


@pytest.mark.parametrize("name", ["is_causal", "padding_is_ignored", "key_matters"])
def test_a_property_that_a_network_cannot_have(name):
    with pytest.raises(checks.NotApplicable, match=f"{name}: "):
        getattr(checks, name)(**TASK)
