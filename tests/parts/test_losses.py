"""Losses: their values, their gradients, what they refuse, and what their targets mean."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy.stats import poisson as poisson_distribution

from nnref.errors import UserError
from nnref.parts.losses import LOSSES, takes_smoothing
from nnref.parts.target_kinds import TARGETS

rng = np.random.default_rng(0)
Z = rng.normal(0, 3, (6, 4))
LABELS = np.array([3, 0, 2, 2, 1, 3])
ONE_HOT = np.eye(4)[LABELS]
SOFT = rng.dirichlet(np.ones(4), 6)
SIGNS = rng.choice([-1.0, 1.0], (6, 4))
COUNTS = rng.poisson(3.0, (6, 4)).astype(float)
WEIGHTS = (0.5, 2.0, 0.0, 1.5)


def log_softmax(z):
    return z - scipy.special.logsumexp(z, axis=-1, keepdims=True)


def smoothed(y, s):
    return (1 - s) * y + s / y.shape[-1]


def huber(e, delta):
    return np.where(np.abs(e) <= delta, e**2 / 2, delta * np.abs(e) - delta**2 / 2).mean(1)


def crossed(z, y, weights=1.0):
    return -(weights * y * log_softmax(z)).sum(1)


def yes_no(z, y):
    p = scipy.special.expit(z)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(1)


P = rng.uniform(size=(6, 4))
E = Z - COUNTS
# name, arguments, targets, the same in NumPy
CASES = {
    "squared_error": ("squared_error", {}, COUNTS, (E**2).mean(1)),
    "absolute_error": ("absolute_error", {}, COUNTS, np.abs(E).mean(1)),
    "huber": ("huber", {}, COUNTS, huber(E, 1.0)),
    "huber, wide": ("huber", {"delta": 4.5}, COUNTS, huber(E, 4.5)),
    "log_cosh": ("log_cosh", {}, COUNTS, np.log(np.cosh(E)).mean(1)),
    "linear": ("linear", {}, COUNTS, (COUNTS * Z).sum(1)),
    "poisson": ("poisson", {}, COUNTS, (np.exp(Z) - COUNTS * Z).mean(1)),
    "poisson, full": (
        "poisson",
        {"full": True},
        COUNTS,
        -poisson_distribution.logpmf(COUNTS, np.exp(Z)).mean(1),
    ),
    "hinge": ("hinge", {}, SIGNS, np.maximum(0, 1 - SIGNS * Z).sum(1)),
    "sigmoid": ("sigmoid_cross_entropy", {}, ONE_HOT, yes_no(Z, ONE_HOT)),
    "sigmoid, between": ("sigmoid_cross_entropy", {}, P, yes_no(Z, P)),
    "sigmoid, smoothed": (
        "sigmoid_cross_entropy",
        {"smoothing": 0.2},
        ONE_HOT,
        yes_no(Z, 0.8 * ONE_HOT + 0.1),
    ),
    "softmax": ("softmax_cross_entropy", {}, LABELS, crossed(Z, ONE_HOT)),
    "softmax, rows": ("softmax_cross_entropy", {}, SOFT, crossed(Z, SOFT)),
    "softmax, smoothed": (
        "softmax_cross_entropy",
        {"smoothing": 0.1},
        LABELS,
        crossed(Z, smoothed(ONE_HOT, 0.1)),
    ),
    "softmax, weighted": (
        "softmax_cross_entropy",
        {"class_weights": WEIGHTS},
        LABELS,
        crossed(Z, ONE_HOT, WEIGHTS),
    ),
    "softmax, weighted and smoothed": (
        "softmax_cross_entropy",
        {"class_weights": WEIGHTS, "smoothing": 0.3},
        SOFT,
        crossed(Z, smoothed(SOFT, 0.3), WEIGHTS),
    ),
}
cases = pytest.mark.parametrize(("name", "arguments", "y", "expected"), CASES.values(), ids=CASES)


def test_every_loss_has_a_case_and_a_kind_of_target():
    assert {name for name, *_ in CASES.values()} == set(LOSSES) == set(TARGETS)


@cases
@pytest.mark.usefixtures("float64")
def test_values_are_those_of_the_formula_and_gradients_those_of_finite_differences(
    name, arguments, y, expected
):
    def total(z, y):
        losses = LOSSES[name](z, y, **arguments)
        return jnp.sum(losses), losses

    # One output of all examples at a time, up and down; examples do not see each other.
    h = 1e-5
    steps = h * np.concatenate([np.zeros((1, 4)), np.eye(4), -np.eye(4)])
    z = np.concatenate([Z + step for step in steps])
    y = np.concatenate([y] * len(steps))
    (_, losses), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(z, y)
    losses = np.reshape(losses, (9, 6))
    np.testing.assert_allclose(losses[0], expected, rtol=1e-10)
    # A difference of second order leaves h^2 times the third derivative.
    differences = (losses[1:5] - losses[5:]).T / (2 * h)
    np.testing.assert_allclose(gradient[:6], differences, rtol=1e-6, atol=1e-7)


@cases
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.usefixtures("float64")
def test_one_number_an_example_in_the_dtype_of_the_outputs(name, arguments, y, expected, dtype):
    losses = jax.eval_shape(partial(LOSSES[name], **arguments), jnp.asarray(Z, dtype), y)
    assert (losses.shape, losses.dtype) == ((6,), dtype)


@cases
def test_huge_outputs_give_finite_losses_and_gradients(name, arguments, y, expected):
    z = np.concatenate([np.full(Z.shape, size, np.float32) for size in (0, 1e4, -1e4)])
    z[:, 0] *= -1
    y = np.concatenate([y] * 3).astype(np.int32 if y is LABELS else np.float32)
    loss = jax.jit(jax.value_and_grad(lambda z: jnp.sum(LOSSES[name](z, y, **arguments))))
    total, gradient = loss(z)
    assert np.isfinite(total)
    assert np.isfinite(gradient).all()


def test_equal_huge_logits_are_a_blind_guess():
    loss = LOSSES["softmax_cross_entropy"](jnp.full((1, 4), 1e4), jnp.array([2]))
    np.testing.assert_allclose(loss, np.log(4), rtol=1e-6)


def test_a_certain_and_right_answer_keeps_its_digits():
    z = jnp.array([[20.0]])
    loss = LOSSES["sigmoid_cross_entropy"](z, jnp.ones((1, 1)))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-20.0)), rtol=1e-6)


def test_log_cosh_keeps_its_digits_in_float32():
    e = np.array([1e-12, 1e-4, 0.1, 0.9999, 1.0, 1.5, 30.0], np.float32)

    def total(e):
        losses = LOSSES["log_cosh"](e, jnp.zeros(7))
        return jnp.sum(losses), losses

    (_, losses), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(e)
    e = e.astype(np.float64)
    np.testing.assert_allclose(losses, np.log1p(2 * np.sinh(e / 2) ** 2), rtol=1e-6)
    np.testing.assert_allclose(slope, np.tanh(e), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_a_wild_rate_goes_on_along_the_tangent():
    def total(z):
        losses = LOSSES["poisson"](z, jnp.zeros(3))
        return jnp.sum(losses), losses

    z = jnp.array([40.0, 41.0, 50.0])
    (_, losses), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(z)
    np.testing.assert_allclose(losses, np.exp(40) * np.array([1, 2, 11]), rtol=1e-12)
    np.testing.assert_allclose(slope, np.exp(40), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "y", "argument"),
    [
        ("huber", COUNTS, "delta"),
        ("sigmoid_cross_entropy", ONE_HOT, "smoothing"),
        ("softmax_cross_entropy", LABELS, "smoothing"),
    ],
)
def test_numbers_may_be_traced(name, y, argument):
    values = np.array([0.1, 0.7], np.float32)
    z = jnp.asarray(Z, jnp.float32)
    both = jax.jit(jax.vmap(lambda value: LOSSES[name](z, y, **{argument: value})))(values)
    for value, losses in zip(values, both, strict=True):
        alone = jax.jit(lambda z, value=value: LOSSES[name](z, y, **{argument: float(value)}))(z)
        np.testing.assert_allclose(losses, alone, rtol=1e-6)


def test_one_hot_rows_and_labels_are_the_same_to_softmax():
    loss = partial(LOSSES["softmax_cross_entropy"], jnp.asarray(Z, jnp.float32))
    np.testing.assert_array_equal(loss(ONE_HOT), loss(LABELS))
    np.testing.assert_array_equal(loss(ONE_HOT.astype(np.int32)), loss(LABELS))


def test_a_sequence_counts_as_the_mean_of_its_steps():
    z, labels = jnp.asarray(Z, jnp.float32).reshape(2, 3, 4), LABELS.reshape(2, 3)
    loss = LOSSES["softmax_cross_entropy"](z, labels, class_weights=WEIGHTS)
    flat = LOSSES["softmax_cross_entropy"](z.reshape(6, 4), LABELS, class_weights=WEIGHTS)
    np.testing.assert_allclose(loss, flat.reshape(2, 3).mean(1), rtol=1e-6)


def test_which_losses_know_label_smoothing():
    assert [name for name in LOSSES if takes_smoothing(LOSSES[name])] == [
        "sigmoid_cross_entropy",
        "softmax_cross_entropy",
    ]
    assert takes_smoothing(partial(LOSSES["softmax_cross_entropy"], class_weights=None))


# --- refusals -----------------------------------------------------------------------------------


def refused(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "softmax_cross_entropy"])
def test_shapes_that_would_broadcast_are_refused_in_the_program(name):
    def call(z, y):
        return jax.jit(LOSSES[name])(z, y)

    assert refused(call, jnp.zeros((8, 1)), jnp.zeros(8)) == (
        f"loss: {name} takes outputs and targets of one shape (batch, ...), these have (8, 1) and "
        "(8,); reshape one of them"
    )
    assert "of one shape" in refused(call, jnp.zeros(8), jnp.zeros((8, 1)))
    assert "of one shape" in refused(call, jnp.zeros(()), jnp.zeros(()))


def test_softmax_refuses_other_shapes_in_the_program():
    call = jax.jit(LOSSES["softmax_cross_entropy"])
    z = jnp.zeros((8, 3))
    assert refused(call, z, jnp.zeros((8, 1), int)) == (
        "loss: softmax_cross_entropy takes, for outputs of shape (8, 3), labels of shape (8,) or "
        "one-hot rows of shape (8, 3), not (8, 1)"
    )
    assert refused(call, z, jnp.zeros(8)) == (
        "loss: softmax_cross_entropy takes integer labels, these have dtype float32"
    )
    assert "not (8, 4)" in refused(call, z, jnp.zeros((8, 4)))


def test_class_weights_of_another_number_are_refused():
    loss = partial(LOSSES["softmax_cross_entropy"], class_weights=(1.0, 2.0))
    assert refused(loss, jnp.zeros((8, 3)), jnp.zeros(8, int)) == (
        "loss.class_weights: 2 weights given for 3 classes; give one for each, in their order"
    )


VALUES_REFUSED = {
    "label beyond": (
        "softmax_cross_entropy",
        np.array([0, 3, 1]),
        3,
        "loss: 3 classes have labels from 0 to 2, 1 of 3 lie beyond, like 3",
    ),
    "label below": (
        "softmax_cross_entropy",
        np.array([0, -1, 1]),
        3,
        "loss: 3 classes have labels from 0 to 2, 1 of 3 lie beyond, like -1",
    ),
    "rows that do not sum to 1": (
        "softmax_cross_entropy",
        np.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]]),
        0,
        "loss: softmax_cross_entropy takes one-hot rows that sum to 1, 2 of 3 do not, like one "
        "with the sum 2; use sigmoid_cross_entropy where several classes may hold at once",
    ),
    "negative probabilities": (
        "softmax_cross_entropy",
        np.array([[1.5, -0.5, 0], [1, 0, 0], [1, 0, 0]]),
        0,
        "loss: softmax_cross_entropy takes rows of probabilities, 1 entries are negative, down to "
        "-0.5",
    ),
    "negative counts": (
        "poisson",
        np.array([[0.0, -2, 3]]),
        0,
        "loss: poisson takes counts, 1 of 3 targets are negative, down to -2; use squared_error "
        "for real values",
    ),
    "no signs": (
        "hinge",
        np.array([[-1.0, 0, 1]]),
        0,
        "loss: hinge takes targets -1 and 1, 1 of 3 are others, like 0; give two classes, or "
        "squared_error for real values",
    ),
    "no probability": (
        "sigmoid_cross_entropy",
        np.array([[0.0, 7, -1]]),
        0,
        "loss: sigmoid_cross_entropy takes targets from 0 to 1, 2 of 3 are not, from -1 to 7; use "
        "squared_error for real values",
    ),
}


@pytest.mark.parametrize(
    ("name", "y", "classes", "text"), VALUES_REFUSED.values(), ids=VALUES_REFUSED
)
def test_values_without_meaning_are_refused_at_the_door_and_wherever_they_can_be_read(
    name, y, classes, text
):
    assert refused(TARGETS[name].encode, y, classes) == text
    z = jnp.zeros((len(y), 3))
    assert refused(LOSSES[name], z, jnp.asarray(y)) == text
    assert refused(jax.jit(lambda z: LOSSES[name](z, y)), z) == text


# --- what targets mean --------------------------------------------------------------------------


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
def test_the_gradient_of_sigmoid_cross_entropy_at_0_is_that_of_the_formula(y):
    """Where a network starts. Forms with |z| or max(z, 0) have a kink there, and a wrong slope."""
    gradient = jax.grad(lambda z: LOSSES["sigmoid_cross_entropy"](z, jnp.full((1, 1), y))[0])
    np.testing.assert_allclose(gradient(jnp.zeros((1, 1))), 0.5 - y, rtol=1e-6)
