"""Losses that are sums of terms, against the terms computed alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import learns, line_of, recipe

from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.terms import Term, outweighed, terms


def error(outputs, y):
    return ((outputs - y) ** 2).mean(-1)


def size(outputs):
    return 50 * (outputs**2).sum(-1)


def both(outputs, y):
    seen = ((outputs - y) ** 2).mean(-1)  # the error
    penalty = 50 * (outputs**2).sum(-1)  # the size
    return (seen + penalty).mean()


def of(loss):
    start = AtStart(recipe(learns, loss=loss))
    return start, terms(start, start.params, start.state)


def test_each_term_has_its_value_its_gradient_and_its_line():
    start, found = of(both)
    x, y = start.sample.x, start.sample.y
    alone = [lambda p: error(learns(p, x), y).mean(), lambda p: size(learns(p, x)).mean()]
    for term, right, mark in zip(found, alone, ("the error", "the size"), strict=True):
        value, gradient = jax.value_and_grad(right)(start.params)
        assert term.value == pytest.approx(float(value), rel=1e-5)
        assert term.gradient == pytest.approx(
            float(jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))), rel=1e-5
        )
        assert term.where.endswith(f":{line_of(__file__, mark)}")
    assert [term.of_targets for term in found] == [True, False]


def test_a_term_of_constants_is_no_penalty():
    """So are the values at the edges that a differential equation asks for."""
    start, _ = of(lambda o, y: error(o, y).mean() + 9 * error(o, 3.0).mean() + size(o).mean())
    last = start.params["dense1"] | {"bias": start.params["dense1"]["bias"] + 3.0}
    found = terms(start, start.params | {"dense1": last}, start.state)
    assert [term.of_targets for term in found] == [True, True, False]


def test_three_terms_with_factors_and_signs():
    _, found = of(lambda o, y: error(o, y).mean() - 0.1 * size(o).mean() + 2 * size(o - 1).mean())
    assert [np.sign(term.value) for term in found] == [1, -1, 1]


@pytest.mark.parametrize(
    "loss",
    [
        lambda outputs, y: error(outputs, y).mean(),
        lambda outputs, y: optax.sigmoid_binary_cross_entropy(outputs, y).mean(),
        lambda outputs, y: jnp.log(1 + error(outputs, y).mean() + size(outputs).mean()),
        lambda outputs, y: 3 + error(outputs, y).mean(),
    ],
)
def test_a_loss_that_is_added_up_number_by_number_has_no_terms(loss):
    assert of(loss)[1] == []


def test_a_penalty_that_outweighs_the_data_falls_to_nothing_and_they_stay():
    """As measured of a variational autoencoder, with its reconstruction as a mean, and as a sum."""

    def measured(pixels, divergence):
        (seen, pull), (size, push) = pixels, divergence
        return [Term("vae.py:40", seen, pull, True), Term("vae.py:41", size, push, False)]

    first = measured((0.769, 0.38), (0.701, 4.4))
    finding = outweighed(first, measured((0.395, 0.11), (0.0005, 0.04)))
    assert finding is not None
    assert (finding.cause, finding.where) == ("excessive_regularization", "vae.py:41")
    assert "vae.py:40" in finding.evidence
    assert outweighed(first, measured((0.395, 0.11), (0.5, 0.04))) is None
    of_sums = measured((49.2, 24.3), (0.701, 4.4))
    assert outweighed(of_sums, measured((19.1, 8.9), (2.87, 5.6))) is None
    assert outweighed(of_sums, measured((19.1, 8.9), (0.0, 0.0))) is None
    late = [Term("vae.py:40", 0.395, 0.11, True), Term("vae.py:41", 0.0005, 0.04, True)]
    assert outweighed(first, late) is None, "a term of constants, as is seen once it is served"
    assert outweighed([], []) is None
