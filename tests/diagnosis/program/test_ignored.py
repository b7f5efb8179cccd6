"""Inputs that nothing looks at: a mask, a step or an index by which they are lost."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import affine, learns, line_of, mean_squared_error, recipe

from nnref.data.trees import layout_of
from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.ignored import Looked, behind_filler, ignored, ignored_by_loss
from nnref.diagnosis.recipe import Recipe

RANDOM = np.random.default_rng(0)
ROWS, STEPS = 300, 7


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def made(apply, x, y, sizes, loss=cross_entropy):
    def init(key):
        names = sorted(sizes)
        keys = jax.random.split(key, len(names))
        return {n: jax.random.normal(k, sizes[n]) for n, k in zip(names, keys, strict=True)}, {}

    return Recipe(
        init, lambda p, s, x, k, t: (apply(p, x), s), loss, train=(x, y), optimizer=optax.sgd(0.1)
    )


def found(asked):
    return [(f.severity, f.cause) for f in ignored(AtStart(asked))]


# Steps of a sequence


def recurrent(step):
    def apply(params, x):
        def turn(state, now):
            state = jnp.tanh(now @ params["in"] + state @ params["over"])
            return state, state

        states = jax.lax.scan(turn, jnp.zeros((len(x), 8)), x.swapaxes(0, 1))[1]
        return states[step] @ params["out"]  # one step

    x = RANDOM.normal(size=(ROWS, STEPS, 2)).astype(np.float32)
    y = (x[:, -1, 0] > 0).astype(np.int32)
    return made(apply, x, y, {"in": (2, 8), "over": (8, 8), "out": (8, 2)})


def test_the_first_step_in_the_place_of_the_last():
    (finding,) = ignored(AtStart(recurrent(0)))
    assert (finding.severity, finding.cause) == ("fault", "inputs_ignored")
    assert finding.where.endswith(f"{Path(__file__).name}:{line_of(__file__, 'one step')}")
    assert "steps 1 to 6 of 7" in finding.evidence
    assert found(recurrent(-1)) == []


# Text and its padding


def text(mask):
    random = np.random.default_rng(1)
    x = random.integers(1, 20, (ROWS, 9)).astype(np.int32)
    y = (x[:, 0] > 9).astype(np.int32)
    x = np.where(x > 9, x, x)
    x[:] = np.where(y[:, None] > 0, 10 + x % 10, 1 + x % 9)
    x[np.arange(9) >= random.integers(2, 10, (ROWS, 1))] = 0

    def apply(params, x):
        kept = mask(x)[..., None]
        words = params["table"][x] + params["places"]
        return (words * kept).sum(1) / jnp.maximum(kept.sum(1), 1) @ params["out"]

    return made(apply, x, y, {"table": (20, 8), "places": (9, 8), "out": (8, 2)})


def test_a_mask_that_is_turned_around():
    assert found(text(lambda x: x == 0)) == [("fault", "inputs_ignored")]
    assert found(text(lambda x: x != 0)) == []


# Tokens that a table does not know


def words(rows, padding=0):
    random = np.random.default_rng(2)
    y = random.integers(0, 2, ROWS).astype(np.int32)
    x = (20 + y[:, None] + 2 * random.integers(0, 10, (ROWS, 6))).astype(np.int32)  # even, odd
    x = np.pad(x, ((0, 0), (0, padding)))

    def apply(params, x):
        return jax.nn.one_hot(x, rows).sum(1) @ params["out"]  # of so many rows

    return made(apply, x, y, {"out": (rows, 2)})


@pytest.mark.parametrize("padding", [0, 20])
def test_tokens_that_are_one(padding):
    (finding,) = ignored(AtStart(words(22, padding)))
    assert (finding.severity, finding.cause) == ("fault", "inputs_ignored")
    assert "are taken for" in finding.evidence
    assert found(words(40)) == []


@pytest.mark.parametrize(
    ("masked", "words"), [(False, "behind what a row says stands 0"), (True, "")]
)
def test_words_that_are_forgotten_behind_the_padding(masked, words):
    """Of what is read, a tenth is left after each step; a mask leaves all of it."""

    def apply(params, x):
        def turn(state, now):
            read = 0.1 * state + params["in"][now]
            return jnp.where(masked & (now == 0)[:, None], state, read), None

        state = jax.lax.scan(turn, jnp.zeros((len(x), 8)), x.T)[0]
        return state @ params["out"]

    x = np.pad(RANDOM.integers(1, 9, (ROWS, 3)), ((0, 0), (0, 60)))
    y = (x[:, 2] > 4).astype(np.int32)
    findings = list(ignored(AtStart(made(apply, x, y, {"in": (9, 8), "out": (8, 2)}))))
    assert [f.severity for f in findings] == ["fault"] * bool(words)
    assert all(words in f.evidence for f in findings)


@pytest.mark.parametrize(("left", "hidden"), [(1e-6, True), (1e-2, False)])
def test_a_trace_that_rounding_may_leave_says_nothing(left, hidden):
    words = np.pad(RANDOM.integers(1, 9, (16, 3)), ((0, 0), (0, 5)))

    def outputs(params, x):
        return [np.asarray(x[:, -1:] + left * x.sum(1, keepdims=True))]

    assert (behind_filler(outputs, {}, words, 0.0) is not None) == hidden


# Columns


@pytest.mark.parametrize(
    ("answer", "severities"),
    [(lambda x: x[:, 2:], ["fault"]), (lambda x: x[:, :1], ["note"])],
)
def test_columns_are_a_fault_only_where_they_hold_the_answer(answer, severities):
    x = RANDOM.normal(size=(ROWS, 3)).astype(np.float32)
    asked = made(
        lambda p, x: jnp.tanh(x[:, :2] @ p["in"]) @ p["out"],
        x,
        answer(x),
        {"in": (2, 8), "out": (8, 1)},
        mean_squared_error,
    )
    assert [f.severity for f in ignored(AtStart(asked))] == severities


def test_what_hides_behind_zeros_or_saturation_is_looked_at():
    def silent(params, x):
        return learns(params, 1e4 * x) * 0.0 + params["dense1"]["bias"]

    def behind_zeros(params, x):
        return affine(params["dense1"], jnp.tanh(1e4 * affine(params["dense0"], x)))

    assert found(recipe(behind_zeros)) == []
    assert found(recipe(silent)) == []  # nothing at all is seen: another check's


def test_rows_as_the_network_sees_them():
    looked = Looked(np.array([True, True]), np.array([True, False]), {4: 3}, 0.0)
    x = np.array([[4, 5], [3, 0], [2, 7]])
    assert looked.share == 0.5
    seen = looked.visible(x)
    assert seen[:, 0].tolist() == [3, 3, 2]
    assert seen[0, 1] == seen[2, 1] != 0 == seen[1, 1]


def test_a_part_of_the_batch_of_a_bare_loss():
    x, y = RANDOM.normal(size=(2, 30, 2)).astype(np.float32)

    def loss(columns):
        return lambda p, batch: jnp.mean((batch[0][:, :columns] @ p[:columns] - batch[1]) ** 2)

    def asked(columns):
        return list(ignored_by_loss(LossAtStart(loss(columns), jnp.ones((2, 2)), (x, y), False)))

    assert [(f.severity, f.cause) for f in asked(1)] == [("note", "inputs_ignored")]
    assert asked(2) == []


@pytest.mark.parametrize(("name", "severity"), [("done", "fault"), ("place", "note")])
def test_what_says_which_rows_count_is_a_fault_to_leave_out(name, severity):
    x = RANDOM.normal(size=(20, 2)).astype(np.float32)
    batch = {"x": x, name: RANDOM.integers(0, 2, 20).astype(np.float32)}
    start = LossAtStart(lambda p, b: jnp.mean((b["x"] @ p) ** 2), jnp.ones((2, 2)), batch, False)
    (finding,) = ignored_by_loss(start)
    assert (finding.severity, finding.cause) == (severity, "inputs_ignored")
    assert finding.where.startswith(name)


def test_an_input_that_is_left_out_is_named_as_the_user_has_it():
    rows = {name: RANDOM.normal(size=(ROWS, 2)).astype(np.float32) for name in ("left", "right")}
    layout = layout_of(rows, "x")
    assert layout is not None
    x, y = layout.pack(rows, "x"), (rows["right"][:, 0] > 0).astype(np.int32)

    def apply(params, x):
        return jnp.tanh(layout.unpack(x)["left"] @ params["a"]) @ params["b"]

    asked = made(apply, x, y, {"a": (2, 8), "b": (8, 2)})
    (finding,) = ignored(AtStart(replace(asked, inputs=layout)))
    assert finding.evidence.startswith("inputs right[0], right[1] change no output")
    assert "trees.py" not in finding.where, "how rows lie in an array is none of theirs"
