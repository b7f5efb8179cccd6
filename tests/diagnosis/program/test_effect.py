"""Layers without effect, and those whose effect only hides: dead units, adapters, choices."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from networks import affine, learns, line_of, recipe

from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.effect import without_effect

HERE = Path(__file__).name


def softmax_over_one(params, x):
    scores = affine(params["dense0"], x)[..., None]
    weights = jax.nn.softmax(scores, axis=-1)[..., 0]  # one entry
    return affine(params["dense1"], weights * jnp.tanh(x @ jnp.ones((3, 5))))


def softmax_over_several(params, x):
    weights = jax.nn.softmax(affine(params["dense0"], x), axis=-1)
    return affine(params["dense1"], weights * jnp.tanh(x @ jnp.ones((3, 5))))


def normalized_over_one(params, x):
    hidden = affine(params["dense0"], x)[..., None]
    normal = (hidden - hidden.mean(-1, keepdims=True))[..., 0]
    return affine(params["dense1"], normal + x @ jnp.ones((3, 5)))


def normalized(params, x):
    hidden = affine(params["dense0"], x)
    return affine(params["dense1"], hidden - hidden.mean(-1, keepdims=True))


def attention(params, x):
    """The bias of a key adds the same to all scores of a query, and moves no softmax over them."""
    steps = x[:, :, None] * jnp.linspace(1.0, 2.0, 4)
    query, key = steps @ params["query"], steps @ params["key"] + params["key bias"]
    weights = jax.nn.softmax(jnp.einsum("nqd,nkd->nqk", query, key), axis=-1)
    return affine(params["dense1"], (weights @ steps)[..., 0] @ jnp.ones((3, 5)))


def weighed_with_nothing(params, x):
    return affine(params["dense1"], x @ jnp.ones((3, 5)) + 0.0 * affine(params["dense0"], x))


def dead(params, x):
    return affine(params["dense1"], jax.nn.relu(affine(params["dense0"], x) - 1000.0))


def rounded(params, x):
    return affine(params["dense1"], jnp.round(3 * affine(params["dense0"], x)))


def test_a_softmax_over_one_entry_is_found_at_its_line():
    (finding,) = without_effect(AtStart(recipe(softmax_over_one)))
    assert (finding.severity, finding.cause) == ("fault", "softmax_on_single_unit")
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'one entry')}")
    assert "dense0.kernel" in finding.evidence
    assert "dense1" not in finding.evidence


def test_a_mean_over_one_entry_takes_everything_away():
    (finding,) = without_effect(AtStart(recipe(normalized_over_one)))
    assert (finding.severity, finding.cause) == ("fault", "parameters_not_updated")


def test_what_is_switched_off_may_be_meant_so():
    (finding,) = without_effect(AtStart(recipe(weighed_with_nothing)))
    assert finding.severity == "note"


@pytest.mark.parametrize("network", [learns, softmax_over_several, normalized, dead, rounded])
def test_layers_with_an_effect_and_units_that_are_dead_are_not_meant(network):
    assert not [*without_effect(AtStart(recipe(network)))]


def test_the_bias_of_the_keys_of_an_attention_is_no_fault():
    made = recipe(attention)
    draw = lambda shape, seed: jax.random.normal(jax.random.key(seed), shape)  # noqa: E731
    more = {"query": draw((4, 4), 1), "key": draw((4, 4), 2), "key bias": draw((1, 4), 3)}
    start = AtStart(made, {"dense1": made.init(jax.random.key(0))[0]["dense1"]} | more, {})
    assert not [*without_effect(start)]


def test_an_adapter_of_zeros_has_an_effect_once_it_moves():
    def adapted(params, x):
        return affine(params["dense1"], jnp.tanh(x @ params["down"] @ params["up"]))

    made = recipe(adapted)
    more = {"down": jnp.ones((3, 2)), "up": jnp.zeros((2, 5))}
    start = AtStart(made, {"dense1": made.init(jax.random.key(0))[0]["dense1"]} | more, {})
    assert not [*without_effect(start)]


def test_a_bare_loss_is_looked_at_too():
    def loss(params, batch):
        x, y = batch
        return jnp.mean((softmax_over_one(params, x) - y) ** 2)

    made = recipe(softmax_over_one)
    start = LossAtStart(loss, made.init(jax.random.key(0))[0], made.train, keyed=False)
    (finding,) = without_effect(start)
    assert finding.cause == "softmax_on_single_unit"
