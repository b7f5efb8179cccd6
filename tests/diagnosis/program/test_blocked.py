"""Gradients that are cut, and those that only look so: frozen parts, straight-through, targets."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import affine, dense, learns, line_of, recipe

from nnref.diagnosis.program.at_start import AtStart, LossAtStart
from nnref.diagnosis.program.blocked import blocked, silent_terms, terms_of_the_batch

HERE = Path(__file__).name
stop = jax.lax.stop_gradient


def hidden(params, x):
    return jnp.tanh(affine(params["dense0"], x))


def rounded(params, x):
    return affine(params["dense1"], jnp.round(affine(params["dense0"], x)))  # rounds


def chosen(params, x):
    best = jnp.argmax(affine(params["dense0"], x), -1)
    return affine(params["dense1"], jax.nn.one_hot(best, 5))


def signs(params, x):
    return affine(params["dense1"], jnp.sign(affine(params["dense0"], x)))


def compared(params, x):
    return affine(params["dense1"], (affine(params["dense0"], x) > 0).astype(jnp.float32))


def as_integers(params, x):
    whole = (9 * hidden(params, x)).astype(jnp.int32)
    return affine(params["dense1"], whole.astype(jnp.float32))


def stopped_inside(params, x):
    return affine(params["dense1"], stop(hidden(params, x)))


def stopped_at_the_end(params, x):
    return stop(learns(params, x))


def in_a_loop(params, x):
    def turn(state, _):
        return jnp.round(affine(params["dense0"], x)) + 0 * state, None

    last = jax.lax.scan(turn, jnp.zeros((len(x), 5)), None, length=3)[0]
    return affine(params["dense1"], last)


@jax.custom_vjp
def cut(z):
    return z


cut.defvjp(lambda z: (z, None), lambda _, slope: (0 * slope,))


def by_hand(params, x):
    return affine(params["dense1"], cut(hidden(params, x)))


@pytest.mark.parametrize(
    "network",
    [
        rounded,
        chosen,
        signs,
        compared,
        as_integers,
        stopped_inside,
        stopped_at_the_end,
        in_a_loop,
        by_hand,
    ],
)
def test_a_gradient_that_is_cut(network):
    (finding,) = blocked(AtStart(recipe(network)))
    assert (finding.severity, finding.cause) == ("fault", "gradient_blocked")
    assert "dense0.kernel" in finding.evidence
    assert ("dense1" in finding.evidence) == (network is stopped_at_the_end)
    assert HERE in finding.where


def test_the_line_is_the_one_that_cuts():
    (finding,) = blocked(AtStart(recipe(rounded)))
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'rounds')}")
    assert "round" in finding.evidence


@jax.custom_vjp
def straight(z):
    return jnp.round(z)


straight.defvjp(lambda z: (jnp.round(z), None), lambda _, slope: (slope,))


@pytest.mark.parametrize(
    "network",
    [
        lambda p, x: affine(p["dense1"], straight(affine(p["dense0"], x))),
        lambda p, x: (lambda z: affine(p["dense1"], z + stop(jnp.sign(z) - z)))(hidden(p, x)),
        lambda p, x: affine(p["dense1"], jax.nn.softmax(affine(p["dense0"], x))),
        learns,
    ],
)
def test_a_gradient_that_finds_its_way(network):
    assert list(blocked(AtStart(recipe(network)))) == []


W = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def experts(before):
    """The best of two experts, by a gate whose softmax comes before the choice or after it."""

    def network(params, x):
        scores = affine(params["dense0"], x)[:, :2]
        scores = jax.nn.softmax(scores) if before else scores
        best, chosen = jax.lax.top_k(scores, 1)
        weight = best if before else jax.nn.softmax(best)
        answers = jnp.stack([x @ jnp.ones((3, 2)), affine(params["dense1"], jnp.tanh(x @ W))], 1)
        return weight * jnp.take_along_axis(answers, chosen[..., None], 1)[:, 0]

    return network


def test_a_gate_whose_softmax_is_over_the_one_that_was_chosen():
    (finding,) = blocked(AtStart(recipe(experts(before=False), rows=200)))
    assert (finding.severity, finding.cause) == ("fault", "gradient_blocked")
    assert "dense0.kernel" in finding.evidence
    assert "always 1" in finding.evidence
    assert "softmax over all entries" in finding.remedy
    assert list(blocked(AtStart(recipe(experts(before=True), rows=200)))) == []


def zeros_last(asked):
    """A kernel of zeros, which lets no gradient pass in the first step."""

    def init(key):
        params = dense(key, 3, 5, 2)
        return params | {"dense1": jax.tree.map(jnp.zeros_like, params["dense1"])}, {}

    return dataclasses.replace(asked, init=init)


def test_a_kernel_of_zeros_cuts_nothing_for_long():
    assert list(blocked(AtStart(zeros_last(recipe(learns))))) == []


def test_frozen_parts_beside_what_learns_are_notes():
    def words(params, x):
        table = stop(params["dense0"]["kernel"])
        return affine(params["dense1"], table[(x[:, 0] > 0).astype(int)])

    def targets(params, x):
        return affine(params["dense2"], jnp.tanh(affine(params["dense0"], x))) - stop(
            jnp.tanh(affine(params["dense1"], x)).sum(-1, keepdims=True)
        )

    found = list(blocked(AtStart(recipe(words))))
    found += blocked(AtStart(recipe(targets, (3, 3, 3, 3))))
    assert [(f.severity, f.cause) for f in found] == [("note", "gradient_blocked")] * 2


def test_a_bare_loss():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

    def loss(network):
        return lambda params, batch: jnp.mean((network(params, batch) - batch[:, :2]) ** 2)

    params = dense(jax.random.key(0), 3, 5, 2)
    (finding,) = blocked(LossAtStart(loss(signs), params, x, False))
    assert (finding.severity, finding.cause) == ("fault", "gradient_blocked")
    assert list(blocked(LossAtStart(loss(learns), params, x, False))) == []


def codebook(moves):
    """An autoencoder through the nearest of some vectors, which a term of the loss may move."""

    def loss(params, x):
        z = jnp.tanh(x @ params["encoder"])
        away = ((z[:, None] - params["table"]) ** 2).sum(-1)
        nearest = params["table"][jnp.argmin(away, -1)]
        through = z + stop(nearest - z)
        moved = nearest if moves else through
        return (
            jnp.mean((through @ params["decoder"] - x) ** 2)
            + jnp.mean((moved - stop(z)) ** 2)
            + jnp.mean((z - stop(nearest)) ** 2)
        )

    random = np.random.default_rng(0)
    shapes = {"encoder": (3, 2), "table": (4, 2), "decoder": (2, 3)}
    params = {name: jnp.asarray(random.normal(size=s), jnp.float32) for name, s in shapes.items()}
    x = random.normal(size=(40, 3)).astype(np.float32)
    return LossAtStart(loss, params, x, False)


def test_a_codebook_that_no_term_moves_is_no_frozen_table():
    (finding,) = blocked(codebook(moves=False))
    assert (finding.severity, finding.cause) == ("fault", "gradient_blocked")
    assert "from table to the loss" in finding.evidence
    assert "table[chosen]" in finding.remedy
    assert list(blocked(codebook(moves=True))) == []


def test_a_stopped_gradient_is_named_and_not_what_stands_beside_it():
    """A leaky ReLU compares numbers with 0, and lets a gradient pass."""

    def leaky(params, x):
        hidden = jax.nn.leaky_relu(affine(params["dense0"], x))
        return affine(params["dense1"], stop(hidden))  # stops

    (finding,) = blocked(AtStart(recipe(leaky)))
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'stops')}")
    assert "lead through stop_gradient:" in finding.evidence


ROWS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
CODES = jax.random.normal(jax.random.key(1), (4, 5))


def of_terms(loss):
    """What is said of a bare loss of a network and a table of codes."""
    params = dense(jax.random.key(0), 3, 5, 2) | {"codes": CODES}
    return list(silent_terms(LossAtStart(loss, params, ROWS, False)))


def errors(params, x):
    return jnp.mean((learns(params, x) - x[:, :2]) ** 2)


def right(params, x):
    return jnp.mean((learns(params, x) > 0) == (x[:, :2] > 0))


def consistent(params, x, cut):
    """The term of a world model by which predictions and what is seen become alike."""
    seen, told = hidden(params, x), jnp.tanh(x @ params["codes"][:3])
    return errors(params, x) + jnp.mean((stop(told) - cut(seen)) ** 2)  # are alike


def penalty_of_steps(params, x):
    return errors(params, x) + 0.1 * jnp.mean(jnp.sign(learns(params, x)))


@pytest.mark.parametrize(
    ("loss", "by"),
    [
        (lambda p, x: consistent(p, x, stop), "stop_gradient"),
        (lambda p, x: errors(p, x) + (1 - right(p, x)), "gt"),
        (penalty_of_steps, "sign"),
    ],
    ids=["stopped on both sides", "accuracy", "signs"],
)
def test_a_term_of_the_loss_without_a_gradient(loss, by):
    (finding,) = of_terms(loss)
    assert (finding.severity, finding.cause) == ("fault", "gradient_blocked")
    assert HERE in finding.where
    assert f"through {by}:" in finding.evidence


def test_the_line_of_a_term_is_the_one_that_cuts():
    (finding,) = of_terms(lambda p, x: consistent(p, x, stop))
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'are alike')}")


def quantized(params, x):
    """As in a VQ-VAE: the codes move to what is seen, and what is seen to the codes."""
    seen = hidden(params, x)
    nearest = jnp.argmin(jnp.sum((seen[:, None] - params["codes"]) ** 2, -1), -1)
    code = params["codes"][nearest]
    outputs = affine(params["dense1"], seen + stop(code - seen))
    fit = jnp.mean((outputs - x[:, :2]) ** 2)
    return fit + jnp.mean((stop(seen) - code) ** 2) + 0.25 * jnp.mean((seen - stop(code)) ** 2)


def of_two_values(params, x):
    """A value of each row, held against reward and value of the next; beside another error."""
    values = learns(params, x)[:, 0]
    wanted = x[:-1, 0] + 0.9 * stop(values[1:])
    return errors(params, x) + jnp.mean((values[:-1] - wanted) ** 2)


def shown(params, x):
    """The gradient of one loss, and the number of another."""
    loss = errors(params, x)
    return loss - stop(loss) + right(params, x)


@pytest.mark.parametrize(
    "loss",
    [
        quantized,
        of_two_values,
        shown,
        errors,
        right,  # all of the loss is without a gradient, which is told elsewhere
        lambda p, x: consistent(p, x, lambda seen: seen),
    ],
)
def test_terms_that_have_a_gradient_or_are_meant_to_have_none(loss):
    assert of_terms(loss) == []


def teaching(student_side):
    """Soft targets of a teacher beside labels; on the side of the student stand its answers."""

    def loss(outputs, y):
        teacher, labels = y[:, :2], y[:, 2]
        own = jax.nn.log_softmax(student_side(outputs, teacher))
        soft = jnp.mean(jnp.sum(jnp.exp(teacher) * (teacher - own), -1))  # of the teacher
        return 0.9 * soft + 0.1 * jnp.mean((outputs[:, 0] - labels) ** 2)

    y = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    y[:, :2] = jax.nn.log_softmax(y[:, :2])
    return AtStart(recipe(learns, y=y, loss=loss))


def test_a_term_that_holds_the_teacher_against_itself():
    (finding,) = terms_of_the_batch(teaching(lambda outputs, teacher: teacher))
    assert finding.cause == "gradient_blocked"
    assert finding.where.endswith(f"{HERE}:{line_of(__file__, 'of the teacher')}")


def test_a_term_of_answers_or_a_number_beside_them_is_none():
    assert not list(terms_of_the_batch(teaching(lambda outputs, teacher: outputs)))

    def loss(outputs, y):
        """A cross-entropy and the entropy of the targets: a divergence in two terms."""
        entropy = -jnp.mean(jnp.sum(y * jnp.log(y), -1))
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(outputs), -1)) - entropy

    y = np.random.default_rng(0).dirichlet([1, 1], 12).astype(np.float32)
    assert not list(terms_of_the_batch(AtStart(recipe(learns, y=y, loss=loss))))
