"""Regularizers: what keeps a network from fitting too well, all of it in one record.

A term that is None is not in the program at all, so that everything can be switched off, verified,
and switched on again piece by piece. Label smoothing is in the losses, decoupled decay in the chain
of a step; the others are here, in the order in which a step meets them:

    augment x -> normalization, dropout -> gradient -> l1, l2 -> clip -> direction
    -> decoupled decay -> x rate x schedule -> x -1 -> max-norm -> weight average
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from nnref.bounds import Count, Fraction, NonNegative, Positive
from nnref.errors import UserError
from nnref.parts.activations import linear

Array = jax.Array
Tree = Any


class Regularization(NamedTuple):
    """Which terms are on, and how strong. None, or false, means: not in the program.

    Args:
        l1: coefficient lambda of lambda ||w||_1 in the loss, coupled.
        l2: coefficient lambda of lambda/2 ||w||^2 in the loss, coupled.
        weight_decay: coefficient lambda of decoupled decay: w <- w - rate lambda w, past clipping
            and optimizer.
        dropout: share of the hidden units that are silenced at each training step.
        normalization: of the hidden layers, over the "batch" or over the "layer" of an example.
        input_noise: standard deviation of Gaussian noise added to the training inputs.
        label_smoothing: share of the target that is spread over all classes, in training only.
        max_norm: largest norm of the weights that enter a unit; projected after each step.
        shift: training images are moved by up to this many pixels each way.
        flip: training images are mirrored left to right, every other one by chance.
        average: decay of an exponential average of the weights, which is what is evaluated.
        decay_everything: l1, l2 and weight_decay also pull biases and normalisation's parameters.
    """

    l1: NonNegative | None = None
    l2: NonNegative | None = None
    weight_decay: NonNegative | None = None
    dropout: Fraction | None = None
    normalization: Literal["batch", "layer"] | None = None
    input_noise: NonNegative | None = None
    label_smoothing: Fraction | None = None
    max_norm: Positive | None = None
    shift: Count | None = None
    flip: bool = False
    average: Fraction | None = None
    decay_everything: bool = False


def is_kernel(array: Array) -> bool:
    """Whether an array is pulled by default: biases and normalisation scales are exempt."""
    return array.ndim >= 2


# --- on the inputs ------------------------------------------------------------------------------


def augment(regularization: Regularization, x: Array, key: Array) -> Array:
    """The inputs of a training step, mirrored, shifted and with noise, where these are on.

    Each has a key of its own: switching one off leaves what the others draw as it was. A UserError
    refuses examples that are no images, or no real numbers, where a term needs them.
    """
    if regularization.flip:
        x = flip(x, jax.random.fold_in(key, 0))
    if regularization.shift is not None:
        x = shift(x, jax.random.fold_in(key, 1), regularization.shift)
    if regularization.input_noise is not None:
        x = input_noise(x, jax.random.fold_in(key, 2), regularization.input_noise)
    return x


def flip(x: Array, key: Array) -> Array:
    """Mirror each image of x, (batch, rows, columns, ...), left to right with probability 1/2.

    Meant for what is the same seen in a mirror: not for digits or letters.
    """
    refuse_no_images("flip", x)
    mirrored = jax.random.bernoulli(key, shape=(len(x), *(1,) * (x.ndim - 1)))
    return jnp.where(mirrored, x[:, :, ::-1], x)


def shift(x: Array, key: Array, pixels: int) -> Array:
    """Move each image of x, (batch, rows, columns, ...), by up to some pixels on both axes.

    x'[r, c] = x[r - dr, c - dc], dr and dc whole and uniform in [-pixels, pixels]: pad and crop, as
    for CIFAR in He et al. (2016), section 4.2. What moves in is the pixel at the border repeated,
    not 0, because once pixels are standardized 0 need not be the background.
    """
    refuse_no_images("shift", x)
    batch, rows, columns = x.shape[:3]
    if pixels >= min(rows, columns):
        raise UserError(
            f"regularization.shift: {pixels} pixels move images of {rows} x {columns} out of "
            f"sight; allowed is less than {min(rows, columns)}"
        )
    moves = jax.random.randint(key, (2, batch), -pixels, pixels + 1)

    def moved(image: Array, down: Array, right: Array) -> Array:
        # A place beyond the border is taken from the border.
        r = jnp.clip(jnp.arange(rows) - down, 0, rows - 1)
        c = jnp.clip(jnp.arange(columns) - right, 0, columns - 1)
        return image[r][:, c]

    return jax.vmap(moved)(x, *moves)


def input_noise(x: Array, key: Array, deviation: float | Array) -> Array:
    """Gaussian noise on the inputs: x' = x + sigma n, n drawn from N(0, 1) for each number.

    For small sigma and squared error as if sigma^2 times the squared gradient of f by x were added
    to the loss (Bishop 1995, "Training with noise is equivalent to Tikhonov regularization").
    `deviation` is sigma, in units of the (standardized) input.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(
            f"regularization.input_noise: inputs of dtype {x.dtype} take no noise; switch it off"
        )
    return x + deviation * jax.random.normal(key, x.shape, x.dtype)


def refuse_no_images(term: str, x: Array) -> None:
    """Raise where the examples of a batch are no images."""
    if x.ndim < 3:
        raise UserError(
            f"regularization.{term}: examples of shape {x.shape[1:]} are no images "
            "(rows, columns, ...); switch it off, or give the data as images"
        )


# --- on hidden layers ---------------------------------------------------------------------------


def normalization(
    kind: Literal["batch", "layer"] | None, width: int, rngs: nnx.Rngs, *, images: bool = False
) -> Callable[[Array], Array]:
    """Sums of mean 0 and variance 1, times a learned scale, plus a learned bias.

    That is (z - mean) / sqrt(var + 1e-5). "batch" takes mean and variance of each unit over the
    batch (Ioffe and Szegedy 2015, alg. 1), in evaluation their running averages, which keep 0.9 of
    the old value at each step as in PyTorch (Keras: 0.99). "layer" takes them over the units of
    each example (Ba et al. 2016, eq. 3), in training and evaluation alike. The variance is the
    biased one, from differences to the mean: flax's default, E z^2 - (E z)^2, cancels for a large
    mean.

    Of images, (batch, rows, columns, channels), a unit is a channel: "batch" takes its statistics
    over batch and pixels, "layer" over channels and pixels; scale and bias are one a channel.
    """
    if kind == "batch":
        return BatchNorm(width, momentum=0.9, use_fast_variance=False, rngs=rngs)
    if kind == "layer":
        axes = (-3, -2, -1) if images else -1
        return nnx.LayerNorm(
            width, epsilon=1e-5, use_fast_variance=False, reduction_axes=axes, rngs=rngs
        )
    return linear


class BatchNorm(nnx.BatchNorm):
    """Batch normalization that gives back sums of the type that it was given.

    Flax's gives that of its running averages: behind it all would be float32 again.
    """

    def __call__(self, x: Array, *arguments: Any, **settings: Any) -> Array:
        """Of x's shape and type."""
        return super().__call__(x, *arguments, **settings).astype(x.dtype)


def dropout(h: Array, rate: float | Array, key: Array) -> Array:
    """Each element becomes 0 with probability `rate`, else is divided by 1 - rate.

    That keeps the mean, so that evaluation needs no factor (Srivastava et al. 2014, section 10).
    """
    kept = jax.random.bernoulli(key, 1 - rate, h.shape)
    return jnp.where(kept, h / (1 - rate), 0).astype(h.dtype)


class Dropout(nnx.Module):
    """Dropout in training, nothing in evaluation; the trainer reseeds its stream at every step.

    `nnx.Dropout` asks in Python whether its rate is 0, which a traced one cannot answer.
    """

    def __init__(self, rate: float | Array, rngs: nnx.Rngs):
        # Inside a function the rate is no leaf of the module: it is a number of the experiment.
        self.drop = partial(dropout, rate=rate)
        self.stream = rngs.dropout
        self.deterministic = False

    def __call__(self, h: Array) -> Array:
        """Of h's shape, in training with some elements 0."""
        return h if self.deterministic else self.drop(h, key=self.stream())


# --- on gradients and steps ---------------------------------------------------------------------


def pull(force: Callable[[Array], Array], everything: bool = False) -> optax.GradientTransformation:
    """Add force(w) to the gradient of every kernel w, or of biases and normalisation, too."""

    def pulled(u: Array, w: Array) -> Array:
        return u + force(w).astype(u.dtype) if everything or is_kernel(w) else u

    return optax.stateless(lambda updates, params: jax.tree.map(pulled, updates, params))


def l1(coefficient: float | Array, everything: bool = False) -> optax.GradientTransformation:
    """Coupled L1: g <- g + lambda sign(w), the gradient of lambda ||w||_1 (Tibshirani 1996).

    At w = 0 the subgradient 0 is taken. Gradient steps jump back and forth across 0: weights
    become small, not exactly 0.
    """
    return pull(lambda w: coefficient * jnp.sign(w), everything)


def l2(coefficient: float | Array, everything: bool = False) -> optax.GradientTransformation:
    """Coupled L2: g <- g + lambda w, the gradient of lambda/2 ||w||^2 (Krogh and Hertz 1992).

    Coupled means that clipping and optimizer see it: under Adam it is rescaled like any gradient
    and is not weight decay (Loshchilov and Hutter 2019, section 2).
    """
    return pull(lambda w: coefficient * w, everything)


def gradient_terms(regularization: Regularization) -> list[optax.GradientTransformation]:
    """The terms that enter the gradient, first in the chain of a step."""
    everything = regularization.decay_everything
    terms = ((l1, regularization.l1), (l2, regularization.l2))
    return [term(strength, everything) for term, strength in terms if strength is not None]


def max_norm(radius: float | Array) -> optax.GradientTransformation:
    """Max-norm: after the step, w <- w min(1, c/||w||) for the weights w that enter each unit.

    Srebro and Shraibman (2005); Srivastava et al. (2014), section 5.1, with dropout. c is the
    `radius`. The unit is the last axis of a kernel, (*window, fan_in, units); biases are left
    alone. For the end of the chain, where updates are what is added to the weights.
    """

    def projected(w: Array) -> Array:
        entering = tuple(range(w.ndim - 1))
        norm = jnp.sqrt(jnp.sum(jnp.square(w), axis=entering, keepdims=True))
        # Divided by max(c, norm), not by the norm, which may be 0.
        return w * (radius / jnp.maximum(radius, norm)).astype(w.dtype)

    def kept(u: Array, w: Array) -> Array:
        return projected(w + u) - w if is_kernel(w) else u

    return optax.stateless(lambda updates, params: jax.tree.map(kept, updates, params))


class WeightAverage(NamedTuple):
    """The averaged weights, where the network is evaluated, and the weight they stand on."""

    average: Tree
    weight: Array  # 1 - d^t, the sum of the weights of all steps so far


def weight_average(decay: float | Array) -> optax.GradientTransformation:
    """Exponential average of the weights: a <- a + (1-d)/(1-d^t) (w - a), kept in the state.

    The same as a = d a + (1-d) w from a = 0, divided by 1-d^t: the random first weights do not
    enter (Polyak and Juditsky 1992 for averaging; Kingma and Ba 2015, section 7.2, for this form).
    Training goes on at w. It remembers about 1/(1-d) steps: with fewer steps in the run, it is
    close to the mean of all. Running statistics of batch normalisation belong to w and not to a.
    """

    def init(params: Tree) -> WeightAverage:
        # Copied: a buffer with two names could not be given away to a jitted step.
        return WeightAverage(jax.tree.map(jnp.copy, params), jnp.zeros(()))

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        weight = decay * state.weight + (1 - decay)
        share = (1 - decay) / weight

        def averaged(a: Array, w: Array, u: Array) -> Array:
            return a + (share * (w + u - a)).astype(a.dtype)

        return updates, WeightAverage(
            jax.tree.map(averaged, state.average, params, updates), weight
        )

    return optax.GradientTransformation(init, update)
