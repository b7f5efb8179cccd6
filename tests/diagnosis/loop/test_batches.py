"""The batches of a loop: whether they differ, what they hold, and whether all are used."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import BATCHES, TX, X, Y, begun, faults, first, network, plain, squares
from networks import line_of

import nnref

HERE = Path(__file__).name
SMALL = [(x[i : i + 4], y[i : i + 4]) for x, y in BATCHES[:4] for i in range(0, 16, 4)]


def gathering(kept):
    """Adam's step with every fourth batch, of the gradients gathered; `kept` of those before."""

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(state["params"], *batch)
        sums = jax.tree.map(lambda s, g: kept * s + g, state["sums"], gradient)
        due = (state["count"] + 1) % 4 == 0

        def choose(one, other):
            return jax.tree.map(lambda a, b: jnp.where(due, a, b), one, other)

        mean = jax.tree.map(lambda s: s / 4, sums)
        updates, moments = TX.update(mean, state["moments"])
        params = choose(optax.apply_updates(state["params"], updates), state["params"])
        moments = choose(moments, state["moments"])
        sums = jax.tree.map(lambda s: s * (1 - due), sums)  # sums that go on
        new = {"params": params, "moments": moments, "sums": sums, "count": state["count"] + 1}
        return new, value

    params, moments = begun()
    sums = jax.tree.map(jnp.zeros_like, params)
    return step, {"params": params, "moments": moments, "sums": sums, "count": jnp.int32(0)}


def test_gathered_gradients_that_are_set_to_0_before_every_batch():
    found = first(*gathering(0.0), SMALL)
    assert (found.cause, found.severity) == ("state_not_carried", "fault")
    assert found.where.startswith("4 leaves: sums.b1, ")
    assert found.where.endswith(f"{HERE}:{line_of(__file__, 'sums that go on')}")
    assert "every 4th batch" in found.evidence


def by_optax():
    optimizer = optax.MultiSteps(TX, 4)

    @jax.jit
    def step(params, moments, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value

    return step, begun(optimizer)


@pytest.mark.parametrize("loop", [gathering(1.0), by_optax()], ids=["by hand", "by optax"])
def test_gradients_that_are_gathered_as_they_should_be(loop):
    assert faults(*loop, SMALL) == []


def test_batches_of_fewer_rows_than_one_holds():
    """A list that is emptied and filled again: what was gathered before is what it holds last."""
    rows = np.tile(X[:4], (4, 1))
    marks = rows[:, :1] * rows[:, 1:]
    order = [np.random.default_rng(seed).permutation(16) for seed in range(5)]
    found = first(plain, begun(), [(rows[o], marks[o]) for o in order])
    assert (found.cause, found.severity, found.where) == ("repeated_rows", "fault", "batches")
    assert "5 batches of 16 rows hold 4 different rows" in found.evidence


def shuffled(x, y, size):
    """Batches without replacement, five times through all rows."""
    orders = [np.random.default_rng(seed).permutation(len(x)) for seed in range(5)]
    return [(x[at], y[at]) for o in orders for at in np.split(o, len(x) // size)]


CELLS = np.float32([[i, j] for i in range(3) for j in range(3)]) / 2
XOR = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
XOR_Y = (XOR.sum(1, keepdims=True) == 1).astype(np.float32)


@pytest.mark.parametrize(
    "batches",
    [
        shuffled(XOR, XOR_Y, 4),
        shuffled(np.tile(XOR, (8, 1)), np.tile(XOR_Y, (8, 1)), 16),
        shuffled(X[:16], X[:16, :1], 16),
        shuffled(X[:16], X[:16, :1], 4),
        [
            (CELLS[at], 0.3 * CELLS[at][:, :1])
            for at in np.random.default_rng(0).integers(0, 9, (5, 32))
        ],
    ],
    ids=[
        "all of XOR",
        "XOR drawn anew",
        "all rows of a small table",
        "a small table in batches",
        "a world of cells",
    ],
)
def test_few_rows_that_are_all_there_are(batches):
    assert faults(plain, begun(), batches) == []


def test_tokens_that_repeat_are_no_rows_that_repeat():
    @jax.jit
    def step(table, words):
        value, gradient = jax.value_and_grad(lambda t: jnp.mean((t[words] - 1) ** 2))(table)
        return table - gradient, value

    draw = np.random.default_rng(0)
    words = [draw.integers(0, 5, (32, 1)) for _ in range(5)]
    assert faults(step, jax.random.normal(jax.random.key(0), (5, 3)), words) == []


def test_one_batch_again_and_again_is_worth_knowing():
    found = nnref.examine(plain, begun(), lambda number: BATCHES[0])
    assert [note.cause for note in found.notes] == ["repeated_rows"]
    assert not np.isnan(found.measures["last loss of the loop"])


def test_batches_that_are_one_buffer():
    x, y = np.array(BATCHES[0][0]), np.array(BATCHES[0][1])
    assert faults(plain, begun(), [(x, y) for _ in range(5)]) == ["repeated_rows"]
    assert faults(plain, begun(), [(x, y)] * 5) == []  # one batch on purpose
    assert faults(plain, begun(), [(x.copy(), y.copy()) for _ in range(5)]) == []


def test_batches_of_one_class():
    marks = (np.arange(128) // 32 % 2).astype(np.float32)[:, None]
    rows = [(X[i : i + 16], marks[i : i + 16]) for i in range(0, 128, 16)]
    assert faults(plain, begun(), rows) == ["unshuffled_split"]
    order = np.random.default_rng(0).permutation(128)
    mixed = [(X[o], marks[o]) for o in np.split(order, 8)]
    assert faults(plain, begun(), mixed) == []


def test_a_flag_that_is_rare_is_alone_in_most_batches_by_chance():
    """Ends of episodes: two rows of all have one, and three of four batches have none."""
    flags = (np.arange(128) % 100 == 7).astype(np.float32)

    def step(params, opt_state, batch):
        return plain(params, opt_state, batch["x"], batch["y"] * (1 - batch["done"][:, None]))

    def rows(done):
        return [{"x": x, "y": y, "done": d} for (x, y), d in zip(BATCHES, done, strict=True)]

    assert faults(step, begun(), rows(np.split(flags, 8))) == []


def test_batches_of_one_class_whose_inputs_do_not_tell_it():
    kinds = np.arange(256) // 64
    random = np.random.default_rng(1)
    told = (random.normal(size=(256, 2)) + 3 * np.eye(4, 2)[kinds]).astype(np.float32)
    marks = (kinds % 2).astype(np.float32)[:, None]

    def rows(order):
        return [(told[order[i : i + 16]], marks[i : i + 16]) for i in range(0, 256, 16)]

    found = first(plain, begun(), rows(random.permutation(256)))
    assert found.cause == "corrupted_labels"
    assert [symptom.cause for symptom in found.symptoms] == ["unshuffled_split"]
    assert faults(plain, begun(), rows(np.arange(256))) == ["unshuffled_split"]


@pytest.mark.parametrize(
    ("name", "used", "causes"),
    [("done", False, ["inputs_ignored"]), ("done", True, []), ("id", False, [])],
)
def test_a_part_of_the_batch_that_says_what_counts(name, used, causes):
    def step(params, opt_state, batch):
        x, y = batch["x"], batch["y"] * batch[name] if used else batch["y"]
        return plain(params, opt_state, x, y)

    rows = [{"x": x, "y": y, name: (np.abs(y) < 1) * np.float32(1)} for x, y in BATCHES]
    assert faults(step, begun(), rows) == causes


@pytest.mark.parametrize(
    ("loop", "causes"),
    [((plain, begun()), ["unshuffled_split"]), (gathering(1.0), [])],
    ids=["an update each", "one update of four"],
)
def test_batches_of_one_class_each_that_make_one_update(loop, causes):
    """As where each class gives a quarter of what an update is made of."""
    order = np.argsort(X[:, 0])
    parts = enumerate(np.split(order, 8))
    rows = [(X[at], np.full((16, 1), number % 4, np.float32)) for number, at in parts]
    assert faults(*loop, rows) == causes


@pytest.mark.parametrize(("values", "causes"), [(2, ["inputs_ignored"]), (5, [])])
def test_a_part_of_yes_and_no_that_no_step_looks_at(values, causes):
    @jax.jit
    def step(params, moments, batch):
        x, y, _ = batch
        return plain(params, moments, x, y)

    batches = [(x, y, (np.arange(len(x)) % values).astype(np.float32)) for x, y in BATCHES]
    assert faults(step, begun(), batches) == causes


NEW = np.random.default_rng(9).normal(size=(200, 2)).astype(np.float32)
WANTED = np.tanh(NEW @ np.array([[1.0], [-1.0]], np.float32)) * NEW[:, :1]


def quick():
    """A loop that learns a few rows in the steps that are made."""
    tx = optax.adam(5e-2)

    @jax.jit
    def step(params, moments, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        updates, moments = tx.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    return step, begun(tx)


def of_new_rows(state):
    return squares(state[0], NEW, WANTED)


def signs(state):
    return np.mean(np.sign(network(state[0], NEW)) == np.sign(WANTED))


@pytest.mark.parametrize("evaluate", [of_new_rows, signs])
def test_one_batch_that_is_learned_alone(evaluate):
    few = X[:8], Y[:8][[3, 7, 0, 5, 1, 6, 2, 4]]
    found = first(*quick(), lambda number: few, evaluate)  # without the number
    assert (found.cause, found.severity) == ("repeated_rows", "fault")
    assert found.where.endswith(f"test_batches.py:{line_of(__file__, 'without the number')}")
    assert "learned alone" in found.evidence


@pytest.mark.parametrize("evaluate", [of_new_rows, signs])
def test_one_batch_of_all_rows_whose_evaluation_is_good(evaluate):
    found = nnref.examine(*quick(), lambda number: (X, Y), evaluate)
    assert not found.faults
    assert [note.cause for note in found.notes] == ["repeated_rows"]


@pytest.mark.parametrize(("rows", "severity"), [(16, "fault"), (None, "note")])
def test_flags_of_rows_are_to_be_looked_at_and_a_flag_of_the_step_may_not_be(rows, severity):
    """A number that says that an epoch ends is not about rows."""
    drawn = np.random.default_rng(0)

    @jax.jit
    def step(params, opt_state, batch):
        return plain(params, opt_state, *batch[:2])

    batches = [(*both, np.asarray(drawn.integers(0, 2, rows), np.float32)) for both in BATCHES]
    found = nnref.examine(step, begun(), batches, effort=0)
    assert [f.severity for f in found if f.cause == "inputs_ignored"] == [severity]
