"""Activations: a(z), element by element.

Positional `z` is an array of any shape and float dtype; the result has both. Keyword arguments are
the schema of the experiment file.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def linear(z: Array) -> Array:
    """Nothing: a(z) = z. Stacked linear layers collapse into one."""
    return z


def sigmoid(z: Array) -> Array:
    """Logistic sigmoid: a(z) = 1 / (1 + exp(-z)), in (0, 1).

    Its derivative is at most 1/4 and its mean is 1/2, so signals shrink and drift in depth
    (Glorot and Bengio 2010, section 3).
    """
    return jax.nn.sigmoid(z)


def tanh(z: Array) -> Array:
    """Hyperbolic tangent: a(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z)), in (-1, 1).

    Zero-centred with derivative 1 at 0 (LeCun et al. 1998, "Efficient BackProp", section 4.4);
    saturates for |z| beyond about 2.
    """
    return jnp.tanh(z)


def relu(z: Array) -> Array:
    """Rectified linear unit: a(z) = max(0, z), with a'(0) = 0 (Nair and Hinton 2010).

    A unit whose z is negative for every input gets no gradient and never comes back.
    """
    return jax.nn.relu(z)


ACTIVATIONS = {
    "linear": linear,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
}
