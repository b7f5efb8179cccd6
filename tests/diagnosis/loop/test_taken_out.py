"""Network, loss and rows, taken out of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import BATCHES, TX, X, Y, begun, drawn, network, squares

import nnref
from nnref.diagnosis.loop.running import Loop
from nnref.diagnosis.loop.taken_out import behind, taken_out

WEIGHTS = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
TOKENS = (np.arange(12)[None] * np.arange(1, 5)[:, None]) % 7


def step_of(loss):
    """A step of Adam of a loss of parameters and a batch."""

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(loss)(state[0], batch)
        updates, moments = TX.update(gradient, state[1])
        return (optax.apply_updates(state[0], updates), moments), value

    return step


def cut(loss, params, batches):
    """What is taken out of some steps of a loss, None where nothing can be."""
    loop = Loop([step_of(loss)], (params, TX.init(params)), batches, None, jax.random.key(0), {}, 8)
    loop.run()
    return taken_out(loop)


def reading(params, tokens):
    """The logits of the next token."""
    return jnp.tanh(params["e"][tokens]) @ params["o"]


def next_token(params, tokens):
    logits, following = reading(params, tokens[:, :-1]), tokens[:, 1:]
    return optax.softmax_cross_entropy_with_integer_labels(logits, following).mean()


def copies(params, x):
    """The loss of an autoencoder."""
    return jnp.mean((network(params, x)[:, :1] * x - x) ** 2)


def first_column(params, x):
    return squares(params, x, x[:, :1])


def decayed(params, batch):
    return squares(params, *batch) + 1e-2 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params))


def by_name(params, batch):
    return jnp.mean(batch["weight"] * (network(params, batch["x"]) - batch["y"]) ** 2)


def test_the_network_and_the_loss_of_a_step():
    taken = cut(lambda params, batch: squares(params, *batch), drawn(), BATCHES)
    assert taken is not None
    recipe = taken.recipe()
    np.testing.assert_array_equal(np.sort(recipe.train[0], 0), np.sort(X, 0))
    for rows in (16, 5):  # of a batch, and fewer
        outputs, _ = recipe.apply(taken.recipe().init(None)[0], {}, X[:rows], None, True)
        begin = {path: taken.state[path] for path in taken.weights}
        plain = network({path.removeprefix("0."): leaf for path, leaf in begin.items()}, X[:rows])
        np.testing.assert_allclose(outputs, plain, rtol=1e-6)
        np.testing.assert_allclose(
            recipe.loss(plain, Y[:rows]), np.mean((plain - Y[:rows]) ** 2), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("loss", "params", "batches", "outputs", "targets"),
    [
        (
            by_name,
            drawn(),
            [{"x": x, "y": y, "weight": np.ones_like(y)} for x, y in BATCHES],
            (16, 1),
            2,
        ),
        (
            next_token,
            {"e": 0.1 * jnp.ones((7, 8)), "o": jnp.eye(8, 7)},
            [TOKENS, TOKENS + 1],
            (4, 11, 7),
            1,
        ),
        (copies, drawn(), [x for x, _ in BATCHES], (16, 2), 1),
        (first_column, drawn(), [x for x, _ in BATCHES], (16, 1), 1),
        (decayed, drawn(), BATCHES, (16, 1), 1),
    ],
    ids=["a dict", "next tokens", "inputs as targets", "one of the inputs", "a penalty beside"],
)
def test_where_a_step_is_cut(loss, params, batches, outputs, targets):
    taken = cut(loss, params, batches)
    assert taken is not None
    assert taken.program.trace.shape(taken.cut.outputs) == outputs
    assert len(taken.cut.targets) == targets
    recipe = taken.recipe()
    weights, _ = recipe.init(None)
    x, y = (part[:4] for part in recipe.train)
    assert y[0].size == {first_column: 1, by_name: 2}.get(loss, y[0].size)
    whole = recipe.loss(recipe.apply(weights, {}, x, None, True)[0], y) + recipe.penalty(weights)
    assert np.isfinite(whole)
    assert (recipe.penalty(weights) > 0) == (loss is decayed)


def test_what_is_climbed_is_no_loss():
    def reward(params, batch):
        return -squares(params, *batch)

    @jax.jit
    def step(params, batch):
        value, gradient = jax.value_and_grad(reward)(params, batch)
        return jax.tree.map(lambda p, g: p + 0.1 * g, params, gradient), value

    loop = Loop([step], drawn(), BATCHES, None, jax.random.key(0), {}, 8)
    loop.run()
    assert taken_out(loop) is None
    assert cut(reward, drawn(), BATCHES) is not None


def test_a_loss_that_no_value_parts_from_its_network_is_not_cut():
    def gated(params, batch):
        x, y = batch
        return jnp.mean((network(params, x) * jnp.tanh(y * params["w2"][0, 0]) - y) ** 2)

    assert cut(gated, drawn(), BATCHES) is None


def asked(batches, **others):
    step = step_of(lambda params, batch: squares(params, *batch))
    found = nnref.examine(step, begun(), batches, **others)
    assert not found.mistakes, found.mistakes
    return found


@pytest.mark.slow
def test_rows_that_cannot_be_learned_are_named_in_a_loop_that_is_right():
    answers = X @ WEIGHTS
    rows = [(X[i : i + 16], answers[i : i + 16, :1]) for i in range(0, 128, 16)]
    found = asked(rows)
    assert found.learns, found
    assert not found.faults
    slipped = [(x, rows[i - 1][1]) for i, (x, _) in enumerate(rows)]
    assert [finding.cause for finding in asked(slipped).faults] == ["corrupted_labels"]
    assert asked(slipped, effort=0).learns is None


@pytest.mark.parametrize(
    ("last", "severity", "cause"),
    [(1e-9, "fault", "learning_rate_too_low"), (0.1, "note", "undertrained")],
)
def test_a_loop_that_stays_behind_the_same_functions(last, severity, cause):
    loop = Loop(
        [step_of(lambda params, batch: squares(params, *batch))],
        begun(),
        BATCHES,
        None,
        jax.random.key(0),
        {},
        40,
    )
    loop.run()
    finding = behind(loop, 0.2, 0.9, np.full(200, last))
    assert (finding.severity, finding.cause) == (severity, cause)
    assert ("a schedule is at its end" in finding.evidence) == (severity == "fault")
