"""Vectors of categories, held against a product with rows of a 1 and zeros."""

import jax
import jax.numpy as jnp
import numpy as np

from nnref.training.embedded import Embedding, embedded
from nnref.training.task import Functions

EMBEDDING = Embedding(("city", "trade"), ((4, 3), (3, 2)))
ROWS = np.array([[0, 2, 1.5], [3, 0, -1], [0, 1, 0.25]], np.float32)


def linear():
    def init(key):
        return {"w": jax.random.normal(key, (6, 1))}, {}

    def apply(params, state, x, key, train):
        return x @ params["w"], state

    return Functions(init, apply, lambda outputs, y: jnp.mean((outputs - y) ** 2))


def test_a_number_becomes_the_row_of_its_matrix_as_a_product_with_one_hot_rows_does():
    vectors = EMBEDDING.init(jax.random.key(0))
    one_hot = [np.eye(4)[[0, 3, 0]], np.eye(3)[[2, 0, 1]]]
    products = [rows @ vectors[name] for rows, name in zip(one_hot, EMBEDDING.names, strict=True)]
    wanted = np.concatenate([*products, ROWS[:, 2:]], 1)
    np.testing.assert_allclose(EMBEDDING(vectors, ROWS), wanted, rtol=1e-6)
    assert EMBEDDING.widened(3) == wanted.shape[1] == 6


def test_vectors_begin_about_as_long_as_one_hot_rows_and_that_of_rare_ones_at_zero():
    (vectors,) = Embedding(("city",), ((2000, 8),)).init(jax.random.key(1)).values()
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths[-1] == 0
    # The mean of 1,999 squared lengths with 8 degrees of freedom: 1, deviation 0.011.
    assert abs(np.mean(lengths[:-1] ** 2) - 1) < 0.05


def test_only_the_vectors_of_a_batch_get_a_gradient_and_the_network_gets_its_own():
    functions = embedded(linear(), EMBEDDING)
    params, state = functions.init(jax.random.key(0))

    def loss(params):
        return functions.loss(functions.apply(params, state, ROWS, None, True)[0], 1.0)

    gradient = jax.grad(loss)(params)
    moved = np.abs(gradient["embedding"]["city"]).max(1) > 0
    assert moved.tolist() == [True, False, False, True]
    assert np.abs(gradient["network"]["w"]).min() > 0
    assert functions.adapt is None
    assert functions.layers is None
    assert functions.penalty is None
