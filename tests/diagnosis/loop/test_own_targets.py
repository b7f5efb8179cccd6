"""Sequences that a network is given and has to predict."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import TX, faults, first
from networks import line_of

from nnref.diagnosis.loop.own_targets import holds_sequences

LETTERS, STEPS, START = 8, 6, 8
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(0, LETTERS, (64, STEPS)).astype(np.int32)
TARGET = ((SOURCE[:, ::-1] + 3) % LETTERS).astype(np.int32)


def outputs(params, given, causal=True):
    """Each step sees itself and the mean of those before it, or of all."""
    seen = params["table"][given]  # the lookup
    steps = seen.shape[1]
    mean = jnp.tril(jnp.ones((steps, steps))) if causal else jnp.ones((steps, steps))
    mixed = jnp.einsum("ts,bsw->btw", mean / mean.sum(1, keepdims=True), seen)
    return jnp.tanh(seen + mixed @ params["mix"])


def entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def shifted(target):
    start = jnp.full((len(target), 1), START)
    return jnp.concatenate([start, target[:, :-1]], 1)


def translation(given_of, counts=None):
    """A loss of (source, target); `given_of(target, key)` is what the decoder is given."""

    def loss(params, batch, key):
        source, target = batch
        h = outputs(params, given_of(target, key)) + params["source"][source][:, ::-1]
        each = entropy(h @ params["out"], target)
        weights = jnp.ones(target.shape) if counts is None else counts(target, key)
        return (each * weights).sum() / weights.sum()

    return loss, [(SOURCE[i : i + 16], TARGET[i : i + 16]) for i in range(0, 64, 16)]


def spelled(given_of):
    """The same of a recurrent decoder, a loop over steps that looks each letter up."""

    def loss(params, batch, key):
        source, target = batch

        def turn(hidden, letter):
            hidden = jnp.tanh(hidden @ params["mix"] + params["table"][letter])
            return hidden, hidden @ params["out"]

        begin = params["source"][source].mean(1)
        logits = jax.lax.scan(turn, begin, given_of(target).T)[1]
        return entropy(logits.swapaxes(0, 1), target).mean()

    return loss, [(SOURCE[i : i + 16], TARGET[i : i + 16]) for i in range(0, 64, 16)]


def model(inputs, causal):
    """A loss of one part alone, which is what comes next."""

    def loss(params, batch, key):
        logits = outputs(params, inputs(batch), causal) @ params["out"]
        return entropy(logits[:, : STEPS - 1], batch[:, 1:]).mean()

    return loss, [TARGET[i : i + 16] for i in range(0, 64, 16)]


def loop(loss, batches):
    def step(state, batch, key):
        params, opt_state = state
        value, gradient = jax.value_and_grad(loss)(params, batch, key)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    drawn = [jax.random.normal(jax.random.key(i), (9, 16)) for i in range(4)]
    params = {"table": drawn[0], "source": drawn[1], "mix": jnp.eye(16), "out": 0.1 * drawn[2].T}
    return jax.jit(step), (params, TX.init(params)), batches


def test_a_decoder_that_is_given_what_it_has_to_predict():
    found = first(*loop(*translation(lambda target, key: target)))
    assert found.cause == "leaked_targets"
    assert "part 1 of the batch" in found.evidence
    assert f"test_own_targets.py:{line_of(__file__, 'the lookup')}" in found.where
    assert "START" in found.remedy


def test_a_recurrent_decoder_that_is_given_what_it_has_to_predict():
    found = first(*loop(*spelled(lambda target: target)))
    assert found.cause == "leaked_targets"
    assert "START" in found.remedy
    assert "leaked_targets" not in faults(*loop(*spelled(shifted)))


@pytest.mark.parametrize("inputs", [lambda y: y, lambda y: y[:, :-1]])
def test_a_language_model_without_a_causal_mask(inputs):
    found = first(*loop(*model(inputs, causal=False)))
    assert found.cause == "leaked_targets"
    assert "tril" in found.remedy


def hidden(target, key):
    return jnp.where(jax.random.bernoulli(key, 0.5, target.shape), START, target)


def padded():
    """Half of the rows end early; what pads them does not count."""
    loss, _ = translation(lambda y, key: shifted(y), lambda y, key: (y != 0).astype(float))
    ends = np.where(np.arange(64) % 2, STEPS, 3)[:, None]
    target = np.where(np.arange(STEPS) < ends, TARGET, 0)
    return loss, [(SOURCE[i : i + 16], target[i : i + 16]) for i in range(0, 64, 16)]


@pytest.mark.parametrize(
    "program",
    [
        translation(lambda target, key: shifted(target)),
        translation(hidden, lambda y, key: jax.random.bernoulli(key, 0.5, y.shape).astype(float)),
        padded(),
        model(lambda y: y, causal=True),
        (lambda p, y, key: entropy(outputs(p, y, False) @ p["out"], y).mean(), model(0, 0)[1]),
    ],
    ids=["shifted by one", "hidden at random", "padded", "causal", "autoencoder"],
)
def test_targets_that_no_output_sees(program):
    assert "leaked_targets" not in faults(*loop(*program))


def beside(labels_of, causal):
    """A loss of two parts, tokens and labels of the same places."""

    def loss(params, batch, key):
        tokens, labels = batch
        counts = labels >= 0
        logits = outputs(params, tokens, causal) @ params["out"]
        return (entropy(logits, jnp.where(counts, labels, 0)) * counts).sum() / counts.sum()

    return loss, [(TARGET[i : i + 16], labels_of(TARGET[i : i + 16])) for i in range(0, 64, 16)]


def but_for_the_last(tokens):
    return np.where(np.arange(STEPS) < STEPS - 1, tokens, -1)


def the_next(tokens):
    return np.concatenate([tokens[:, 1:], np.full((len(tokens), 1), -1)], 1)


def test_labels_that_are_the_tokens_of_the_same_places():
    """Of an autoencoder they may be: it sees all steps."""
    found = first(*loop(*beside(but_for_the_last, causal=True)))
    assert found.cause == "leaked_targets"
    assert "part 1 of the batch is part 0 again" in found.evidence
    assert "leaked_targets" not in faults(*loop(*beside(the_next, causal=True)))
    assert "leaked_targets" not in faults(*loop(*beside(but_for_the_last, causal=False)))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (SOURCE, True),
        (SOURCE[:2], False),  # the ends of edges, say
        (SOURCE[:, :2], False),
        (SOURCE[0], False),
        (SOURCE.astype(np.float32), False),
    ],
)
def test_sequences_are_rows_of_steps(array, told):
    assert holds_sequences(array) is told


def denoising(held, noisy=True):
    """A network that is given noisy rows, and held against the noise, the rows, or what it got."""

    def step(state, batch):
        key, draw = jax.random.split(state["key"])
        noise = jax.random.normal(draw, batch.shape)
        given = batch + 0.5 * noise if noisy else batch

        def loss(params):
            wanted = {"noise": noise, "rows": batch, "given": given}[held]
            return jnp.mean((jnp.tanh(given @ params["a"]) @ params["b"] - wanted) ** 2)  # held

        params = state["params"]
        value, gradient = jax.value_and_grad(loss)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        return {"params": params, "key": key}, value

    random = np.random.default_rng(0)
    params = {"a": random.normal(size=(4, 8)) / 2, "b": random.normal(size=(8, 4)) / 3}
    state = {"params": jax.tree.map(jnp.float32, params), "key": jax.random.key(0)}
    batches = [random.normal(size=(16, 4)).astype(np.float32) for _ in range(12)]
    return step, state, batches


def test_an_answer_that_is_held_against_the_noisy_rows_it_was_given():
    found = first(*denoising("given"))
    assert found.cause == "leaked_targets"
    assert found.where.endswith(f":{line_of(__file__, 'held')}")


@pytest.mark.parametrize(
    "loop", [denoising("noise"), denoising("rows"), denoising("given", noisy=False)]
)
def test_noise_or_clean_rows_as_targets_and_an_autoencoder_are_healthy(loop):
    assert "leaked_targets" not in faults(*loop)
