"""Answers that change with the other rows of their batch, or with their place in it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from networks import affine, learns, line_of, recipe, recipe_of

import nnref
from nnref.diagnosis.api import recipe_from
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.rows import (
    batch_dependence,
    one_target_counts,
    order_of_rows,
    uncounted,
)

HERE = Path(__file__).name
X = np.random.default_rng(0).normal(size=(24, 5, 4)).astype(np.float32)
Y = X[:, 0, :2]
WAVES = jnp.sin(jnp.arange(400.0).reshape(100, 4))


def between(mix):
    return lambda params, x: affine(params["dense1"], mix(affine(params["dense0"], x)))


@pytest.mark.parametrize(
    ("mix", "severities"),
    [
        (lambda z: jax.nn.softmax(z, 0), ["fault"]),
        (lambda z: z - z.mean(0), ["note"]),
        (lambda z: jnp.cumsum(z, 0), ["fault"]),
        (lambda z: jax.nn.softmax(z, 1), []),
    ],
)
def test_rows_that_look_at_each_other(mix, severities):
    found = list(batch_dependence(AtStart(recipe(between(mix)))))
    assert [finding.severity for finding in found] == severities
    assert {finding.cause for finding in found} <= {"loss_axis_error"}


def sequences(network):
    """A network of sequences, (rows, steps, features), with kernels and places."""

    def init(key):
        keys = jax.random.split(key, 3)
        shapes = {"in": (4, 4), "over": (4, 4), "out": (4, 2)}
        return {n: jax.random.normal(k, shapes[n]) for n, k in zip(shapes, keys, strict=True)}

    return recipe_of(
        nnref.Task(init=init, apply=network, loss=lambda o, y: jnp.mean((o - y) ** 2), train=(X, Y))
    )


def placed_along_rows(params, x):
    x = x @ params["in"] + WAVES[: len(x), None]  # along the rows
    return jnp.tanh(x).mean(1) @ params["out"]


def placed_along_steps(params, x):
    x = x @ params["in"] + WAVES[None, : x.shape[1]]
    return jnp.tanh(x).mean(1) @ params["out"]


def states(params, steps):
    def turn(state, now):
        state = jnp.tanh(now @ params["in"] + state @ params["over"])
        return state, state

    return jax.lax.scan(turn, jnp.zeros(steps.shape[1:]), steps)[1]  # over the rows


def time_first(params, x):
    """Sequence-major inside, and meant so."""
    return states(params, x.swapaxes(0, 1))[-1] @ params["out"]


def rows_for_steps(params, x):
    return states(params, x)[:, -1] @ params["out"]


def folded(params, x):
    """Rows and steps in one axis, as for a layer that takes no sequences."""
    flat = jnp.tanh(x.reshape(-1, 4) @ params["in"])
    return flat.reshape(x.shape).mean(1) @ params["out"]


@pytest.mark.parametrize(
    ("network", "line"),
    [
        (placed_along_rows, "along the rows"),
        (rows_for_steps, "over the rows"),
        (placed_along_steps, None),
        (time_first, None),
        (folded, None),
        (lambda p, x: (lambda e: e @ e.T)(x.mean(1) @ p["in"]), None),  # pairs of rows
    ],
)
def test_places_and_steps_that_are_those_of_the_batch(network, line):
    found = list(batch_dependence(AtStart(sequences(network))))
    if line is None:
        assert found == []
        return
    (finding,) = found
    assert (finding.severity, finding.cause) == ("fault", "loss_axis_error")
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, line)}")


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(self.norm(self.first(x.mean(1)))))


def test_batch_normalization_and_dropout_are_no_fault():
    task = nnref.Task(model=Noisy, loss=lambda o, y: (o - y) ** 2, train=(X, Y))
    assert list(batch_dependence(AtStart(recipe_of(task)))) == []


def test_what_only_training_mixes():
    def network(params, state, x, key, train):
        return learns(params, jnp.flip(x, 0) if train else x), state

    asked = recipe(learns)
    (finding,) = batch_dependence(
        AtStart(type(asked)(asked.init, network, asked.loss, train=asked.train))
    )
    assert "in training" in finding.evidence


@pytest.mark.parametrize(("network", "causes"), [(placed_along_rows, 1), (placed_along_steps, 0)])
def test_a_bare_loss_that_numbers_its_rows(network, causes):
    params = sequences(network).init(jax.random.key(0))[0]

    def loss(params, batch):
        return jnp.mean((network(params, batch[0]) - batch[1]) ** 2)

    found = list(order_of_rows(LossAtStart(loss, params, (X, Y), False)))
    assert [f.cause for f in found] == ["loss_axis_error"] * causes
    assert all(f.where.endswith(f"{HERE}:{line_of(__file__, 'along the rows')}") for f in found)


def risk(order):
    """The partial likelihood of Cox: the risk sets are sums over those who come first."""

    def loss(params, batch):
        x, time = batch
        rows = jnp.argsort(-time) if order == "sorted here" else jnp.arange(len(time))
        hazard = (x @ params)[rows, 0]
        return -jnp.mean(hazard - jnp.log(jnp.cumsum(jnp.exp(hazard))))  # at risk

    return loss


@pytest.mark.parametrize(
    ("order", "causes"), [("none", ["loss_axis_error"]), ("sorted here", []), ("before", [])]
)
def test_sums_from_row_to_row_ask_for_sorted_rows(order, causes):
    random = np.random.default_rng(1)
    x, time = random.normal(size=(40, 3)), random.random(40).astype(np.float32)
    time = np.sort(time)[::-1] if order == "before" else time
    start = LossAtStart(risk(order), jnp.ones((3, 1)), (x, time), False)
    found = list(order_of_rows(start))
    assert [finding.cause for finding in found] == causes
    for finding in found:
        assert finding.severity == "fault"
        assert finding.where.endswith(f":{line_of(__file__, 'at risk')}")


@pytest.mark.parametrize(("shuffle", "causes"), [(True, ["loss_axis_error"]), (False, [])])
def test_rows_that_lie_in_order_are_shuffled_for_training(shuffle, causes):
    """Times in falling order, with flags beside them; a batch has them so if nobody shuffles."""
    random = np.random.default_rng(1)
    y = np.stack([np.sort(random.random(64))[::-1], np.arange(64) % 2], 1).astype(np.float32)

    def loss(outputs, y):
        hazard = outputs[:, 0]
        return -jnp.mean(y[:, 1] * (hazard - jnp.log(jnp.cumsum(jnp.exp(hazard)))))

    asked = recipe(learns, (3, 5, 1), y=y, loss=loss, rows=64, shuffle=shuffle, batch_size=16)
    found = list(order_of_rows(AtStart(asked)))
    assert [(each.severity, each.cause) for each in found] == [("fault", each) for each in causes]


def squared(outputs, y):
    return (outputs[:, 0] - y[:, 0]) ** 2


@pytest.mark.parametrize(
    ("loss", "causes"),
    [
        (lambda o, y: squared(o, y)[y[:, 1].astype(int)].mean(), ["rows_dropped"]),
        (lambda o, y: (squared(o, y) * y[:, 1]).mean(), []),
        (lambda o, y: squared(o, y).mean(), []),
    ],
    ids=["a mask as numbers of rows", "a mask", "all rows"],
)
def test_rows_that_no_loss_looks_at(loss, causes):
    """One row in four counts, as its targets say."""
    counts = np.arange(16) % 4 == 0
    y = np.stack([np.linspace(-1, 1, 16), counts], 1).astype(np.float32)
    found = uncounted(AtStart(recipe(learns, y=y, loss=loss, rows=16)))
    assert [finding.cause for finding in found] == causes


def of_those_at_risk(chosen):
    """The partial likelihood of Cox, rows by their times, of those that `chosen` takes."""

    def loss(outputs, y):
        order = jnp.argsort(y[:, 0])
        risk, event = outputs[order, 0], y[order, 1].astype(int)
        terms = risk - jax.lax.cumlogsumexp(risk, reverse=True)
        return -jnp.mean(chosen(terms, event))

    return loss


@pytest.mark.parametrize(
    ("chosen", "causes"),
    [
        (lambda terms, event: terms[event], ["rows_dropped"]),
        (lambda terms, event: terms * event, []),
        (lambda terms, event: terms[jnp.nonzero(event, size=4)[0]], []),
    ],
)
def test_a_column_of_flags_is_no_number_of_a_row(chosen, causes):
    y = np.stack([np.linspace(0, 1, 16), np.arange(16) % 4 == 0], 1).astype(np.float32)
    found = uncounted(AtStart(recipe(learns, y=y, loss=of_those_at_risk(chosen), rows=16)))
    assert [finding.cause for finding in found] == causes


def test_a_loss_that_looks_at_no_row_at_all_has_dropped_none():
    """A softmax over one unit is 1 whatever it is: another check's."""

    def loss(outputs, y):
        return -jnp.mean(jax.nn.log_softmax(outputs[:, :1])[:, 0] * y[:, 0])

    y = np.linspace(-1, 1, 32).reshape(16, 2).astype(np.float32)
    assert not list(uncounted(AtStart(recipe(learns, y=y, loss=loss, rows=16))))


def words_behind_padding():
    """Sixty-four sequences of six words, of which the last ones of most are padding, 0."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 9, (64, 6))
    return np.where(np.arange(6) < rng.integers(2, 7, (64, 1)), words, 0)


def of_words(mask):
    """The cross-entropy of nine words at each place, where the mask of the words is 1."""

    def loss(outputs, y):
        terms = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
        return jnp.sum(terms * mask(y)) / jnp.sum(mask(y))

    return loss


@pytest.mark.parametrize(
    ("mask", "causes"),
    [
        (lambda y: y == 0, ["loss_mismatch"]),
        (lambda y: y != 0, []),
        (lambda y: y == y, []),
        (lambda y: y < 2, []),
    ],
    ids=["padding alone", "words alone", "everything", "padding and one word"],
)
def test_a_mask_that_leaves_padding_alone(mask, causes):
    x, y = np.zeros((64, 3), np.float32), words_behind_padding()
    task = nnref.Task(
        init=lambda key: {"w": jax.random.normal(key, (3, 54))},
        apply=lambda params, x: (x @ params["w"]).reshape(-1, 6, 9),
        loss=of_words(mask),
        train=(x, y),
    )
    found = list(one_target_counts(AtStart(recipe_from(task, {}))))
    assert [finding.cause for finding in found] == causes
    assert all("each of which is 0" in finding.evidence for finding in found)


@pytest.mark.parametrize(("wanted", "causes"), [(0.0, ["loss_mismatch"]), (1.0, [])])
def test_a_mask_beside_the_targets(wanted, causes):
    """The number of a fold may choose the rows as well, where the targets that count differ."""
    y, fold = words_behind_padding(), np.arange(64) % 6
    real = (y != 0).astype(np.float32)

    def loss(outputs, targets):
        y, real, fold = targets
        terms = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
        return jnp.sum(jnp.where((real == wanted) & (fold[:, None] == 0), terms, 0.0))

    task = nnref.Task(
        init=lambda key: {"w": jax.random.normal(key, (3, 54))},
        apply=lambda params, x: (x @ params["w"]).reshape(-1, 6, 9),
        loss=loss,
        train=(np.zeros((64, 3), np.float32), (y, real, fold)),
    )
    found = list(one_target_counts(AtStart(recipe_from(task, {}))))
    assert [finding.cause for finding in found] == causes
