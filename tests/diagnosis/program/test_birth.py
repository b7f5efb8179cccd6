"""Where numbers that are not finite are born, on functions whose edge is known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnref.diagnosis.program.birth import birth_of, masked_by_product

X = jnp.array([0.0, 1.0, 2.0])


def rooted(x):
    return jnp.sqrt(x).sum()  # its slope is infinite at 0


def guarded(x):
    return jnp.where(x > 0, jnp.log(x), 0.0).sum()


def closed(x):
    return jax.nn.softmax(jnp.where(x > 5, x, -jnp.inf))


def looped(x):
    return jax.lax.scan(lambda h, _: (h * x * 1e30, None), x, length=5)[0].sum()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: 3 + 0 * (x / x.min()), "a division by 0"),
        (lambda x: 2 * jnp.log(x).sum(), "a logarithm of 0 or less"),
        (jax.value_and_grad(rooted), "the derivative of a root of 0 or less"),
        (jax.grad(guarded), "the derivative of a logarithm of 0 or less"),
        (jax.grad(lambda x: jnp.linalg.norm(0 * x)), "the derivative of a root of 0 or less"),
        (jax.grad(lambda x: (x**0.5).sum()), "the derivative of a power of 0 or less"),
        (lambda x: jnp.exp(1000 * x) - jnp.exp(1000 * x), "an exponential that overflows"),
        (closed, "a difference of two infinities"),
        (lambda x: 1e30 * (1e30 * x), "a product that overflows"),
        (lambda x: (1e5 * x).astype(jnp.float16), "a number beyond the largest of its dtype"),
        (looped, "an operation (scan)"),
    ],
)
def test_the_operation_is_named(function, name):
    birth = birth_of(function, X)
    assert birth is not None
    assert birth.name.startswith(name)
    assert Path(birth.where.rpartition(":")[0]).name == Path(__file__).name


@pytest.mark.parametrize(
    "function",
    [
        guarded,
        lambda x: jax.nn.softmax(jnp.where(x > 1, x, -jnp.inf)),
        lambda x: jnp.maximum(-jnp.inf, x),
        lambda x: x.astype(jnp.int32),
    ],
)
def test_what_is_masked_or_guarded_is_not_born(function):
    assert birth_of(function, X) is None


def test_numbers_that_come_in_are_not_born():
    assert birth_of(lambda x: 2 * x, jnp.array([np.nan, 1.0])) is None


def test_the_line_is_that_of_the_operation_whose_slope_is_infinite():
    birth = birth_of(jax.value_and_grad(rooted), X)
    assert birth is not None
    line = int(birth.where.rpartition(":")[2])
    assert (
        Path(__file__).read_text().splitlines()[line - 1].endswith("# its slope is infinite at 0")
    )
    assert "jnp.sqrt" in birth.remedy


def test_the_inputs_on_which_it_depends():
    birth = birth_of(lambda a, b: a + 1 / b, X, X)
    assert birth is not None
    assert birth.inputs == {1}


HOLED = jnp.array([1.0, jnp.nan, 3.0])
HEARD = ~jnp.isnan(HOLED)


@pytest.mark.parametrize(
    ("function", "masks"),
    [
        (lambda w: ((w * X - HOLED) ** 2 * HEARD).sum(), True),
        (jax.grad(lambda w: jnp.where(HEARD, (w * X - HOLED) ** 2, 0).sum()), True),
        (jax.grad(lambda w: (jnp.where(HEARD, w * X - HOLED, 0) ** 2).sum()), False),
        (lambda w: ((w * X - HOLED) ** 2).sum(), False),
        (lambda w: (0.0 * (w * X - HOLED)).sum(), False),
    ],
)
def test_a_mask_that_is_multiplied_with_nan_is_found(function, masks):
    birth = masked_by_product(function, 2.0)
    assert (birth is not None) == masks
    assert birth is None or Path(birth.where.rpartition(":")[0]).name == Path(__file__).name
