"""A loop that does not learn, with small edits of its lines."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import BATCHES, X, Y, begun, network, plain

import nnref
from nnref.diagnosis.findings import fault
from nnref.diagnosis.loop import examine
from nnref.diagnosis.loop.edited import Supply, one_edit, trained
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.one_edit.judging import of_evaluation
from nnref.diagnosis.one_edit.scale import scale_of
from nnref.diagnosis.one_edit.search import functions_of

NOISY = Y[:, 0] + 0.3 * np.random.default_rng(1).normal(size=len(Y)).astype(np.float32)
ROWS = [(X[i : i + 32], NOISY[i : i + 32]) for i in range(0, len(X), 32)]
SHARES = jnp.array([0.1, 0.9])
TX = optax.adam(1e-2)


def quantiles(params, x):
    return jnp.tanh(x @ params["w1"]) @ params["w2"] + params["b2"]


def pinball(params, x, y):
    over = y[:, None] - quantiles(params, x)
    return jnp.mean(jnp.maximum(SHARES * over, (SHARES - 1) * over))


def turned(params, x, y):
    over = quantiles(params, x) - y[:, None]
    return jnp.mean(jnp.maximum(SHARES * over, (SHARES - 1) * over))


def quantile_error(state):
    over = NOISY[:, None] - np.asarray(quantiles(state[0], X))
    shares = np.asarray(SHARES)
    return float(np.maximum(shares * over, (shares - 1) * over).mean())


def loop_of(loss):
    first, second = jax.random.split(jax.random.key(0))
    params = {"w1": jax.random.normal(first, (2, 16)), "w2": jax.random.normal(second, (16, 2))}
    params["b2"] = jnp.zeros(2)

    @jax.jit
    def step(state, batch):
        value, slopes = jax.value_and_grad(loss)(state[0], *batch)
        updates, moments = TX.update(slopes, state[1])
        return (optax.apply_updates(state[0], updates), moments), value

    return step, (params, TX.init(params)), ROWS, quantile_error


def test_a_loss_whose_difference_is_turned_round_is_told_by_what_cures_it():
    found = nnref.examine(*loop_of(turned))
    (fault,) = found.faults
    assert fault.cause == "wrong_expression"
    assert "test_edited.py" in fault.where
    assert "over = quantiles" in fault.where
    assert fault.remedy.startswith("y[:, None] - quantiles(params, x) instead of")
    assert not nnref.examine(*loop_of(pinball)).faults


def test_no_edit_is_tried_without_effort_or_evaluation():
    step, state, rows, evaluate = loop_of(turned)
    assert "small edits" not in str(nnref.examine(step, state, rows, evaluate, effort=0).checked)
    assert not nnref.examine(step, state, rows).faults


@pytest.mark.parametrize(("cause", "tried"), [("learning_rate_too_high", 1), ("loss_broadcast", 0)])
def test_edits_are_tried_beside_what_others_may_have_brought_about(monkeypatch, cause, tried):
    asked = []
    monkeypatch.setattr(examine, "one_edit", lambda *each: asked.append(1) or [])
    examine.edited(None, 1.0, [fault(cause, "the loop", "told")], [], [])
    assert len(asked) == tried


def run(step, state, batches, evaluate):
    loop = Loop([step], state, batches, evaluate, jax.random.key(0), {}, 10)
    loop.run()
    return loop


def whole(params, x):
    hidden, out = x, x[:, :1]
    for _ in range(2):
        hidden, out = layer(params, hidden)
    return out


def thrown_away(params, x):
    hidden, out = x, x[:, :1]
    for _ in range(2):
        _, out = layer(params, hidden)
    return out


def layer(params, hidden):
    return jnp.tanh(hidden @ params["turn"]), network(params, hidden)


@jax.jit
def of_two_layers(state, batch):
    """A step of the whole network."""

    def loss(params):
        return jnp.mean((whole(params, batch[0]) - batch[1]) ** 2)

    value, slopes = jax.value_and_grad(loss)(state[0])
    updates, moments = TX.update(slopes, state[1])
    return (optax.apply_updates(state[0], updates), moments), value


def begun_with_two_layers():
    params = begun()[0] | {"turn": jax.random.normal(jax.random.key(5), (2, 2))}
    return params, TX.init(params)


@pytest.mark.parametrize("answers", [thrown_away, whole])
def test_what_the_evaluation_alone_runs_is_edited_too(answers):
    """Two layers, of which the evaluation throws the state of the first one away."""

    def error(state):
        return float(jnp.mean((answers(state[0], X) - Y) ** 2))

    loop = run(of_two_layers, begun_with_two_layers(), BATCHES, error)
    training, start, end = trained(loop), loop.start.arrays, loop.further.state.arrays
    scale = scale_of(error, training.score(start))
    found = of_evaluation(training, functions_of(training), scale, start, end, 200)
    assert (found is not None) == (answers is thrown_away)
    assert found is None or "_, out = layer" in found.finding.where
    assert bool(one_edit(loop, 0.1)) == (answers is thrown_away)


def test_batches_are_those_of_further_epochs():
    def step(state, batch):
        return plain(*state, *batch)[:2]

    made = []

    def drawn_anew():
        made.append(len(made))
        return iter([BATCHES[len(made) % len(BATCHES)]] * 3)

    supply = Supply(run(step, begun(), drawn_anew, None))
    epochs = len(made)
    for place in range(7):
        supply.batch(place, 0)
    assert len(made) == epochs + 3
    supply = Supply(run(step, begun(), BATCHES, None))
    places = [supply.batch(place, 0)[0] is BATCHES[place % 8][0] for place in range(20)]
    assert all(places)
    others = [id(supply.batch(place, 1)[0]) for place in range(8)]
    assert others != [id(x) for x, _ in BATCHES]
    assert set(others) == {id(x) for x, _ in BATCHES}
    supply = Supply(run(step, begun(), iter(BATCHES), None))
    assert supply.batch(9, 0)[0].shape == BATCHES[0][0].shape  # used up: its batches come again


def drawn_apart(number):
    draw = np.random.default_rng(number)
    rows, others = draw.integers(len(X), size=(2, 32))
    return X[rows], Y[others]


def epoch_apart():
    draw = np.random.default_rng(0)
    for _ in range(8):
        rows, others = draw.integers(len(X), size=(2, 32))
        yield X[rows], Y[others]


def drawn_with_noise(number):
    """The same rows, with a slip that harms nobody: others are drawn in vain."""
    draw = np.random.default_rng(number)
    rows, others = draw.integers(len(X), size=(2, 32))
    return X[rows], Y[rows] + 0 * Y[others]


@pytest.mark.parametrize("batches", [drawn_apart, epoch_apart, drawn_with_noise])
def test_what_makes_the_batches_is_edited_too(batches):
    def error(state):
        return float(jnp.mean((whole(state[0], X) - Y) ** 2))

    found = one_edit(run(of_two_layers, begun_with_two_layers(), batches, error), 0.1)
    if batches is drawn_with_noise:
        assert not found
    else:
        (fault,) = found
        assert fault.where.endswith("X[rows], Y[others]")
        assert fault.remedy in ("rows instead of others", "others instead of rows")


def drawn_until_positive(number):
    """Rows apart from their answers, once more, behind a loop that an edit makes endless."""
    draw, size = np.random.default_rng(number), np.array([-1.0])
    while size < 0:
        size = size + draw.random(1)
    rows, others = draw.integers(len(X), size=(2, 32))
    return X[rows], Y[others]


def test_an_edit_that_makes_a_loop_endless_is_given_up():
    def error(state):
        return float(jnp.mean((network(state[0], X) - Y) ** 2))

    @jax.jit
    def step(state, batch):
        return plain(*state, *batch)[0:2]

    (fault,) = one_edit(run(step, begun(), drawn_until_positive, error), 0.1)
    assert fault.where.endswith("X[rows], Y[others]")


def test_no_edit_of_a_while_loop_is_tried():
    @jax.jit
    def step(state, batch):
        def more(count):
            return count < 3

        jax.lax.while_loop(more, lambda count: count + 1, 0)
        return plain(*state, *batch)[0:2]

    loop = run(step, begun(), BATCHES, lambda state: {"loss": 1.0})
    with pytest.raises(ValueError, match="endless"):
        functions_of(trained(loop))
