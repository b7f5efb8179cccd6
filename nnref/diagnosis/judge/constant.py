"""The best constant answer: the outputs, the same for every row, for which a loss is least."""

import warnings
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
TURNS = 400  # of a descent at most
PATIENCE = 60  # turns without a fall, after which it is over
FALL = 1e-4  # of the loss: a smaller fall is none
GROWTH, SHRINKAGE = 1.5, 0.5  # of a step whose slope kept its sign, or changed it
DESCENTS = 8  # that run beside each other
PAIRS = 128  # combinations of starts, where outputs are several arrays
NUMBERS = 1_000_000  # outputs of all descents together: so many at a time keep the memory small


class Descent(NamedTuple):
    """Where a descent stands; each number of the answer has a step of its own."""

    answer: Tree  # the last one whose loss was finite
    move: Tree  # what is added to it next
    step: Tree  # lengths of the next moves
    slope: Tree  # the gradient at the answer
    least: Any  # loss so far
    mark: Any  # the last loss that was a fall from the one before it
    still: Any  # turns since then


def least_constant_loss(loss: Callable[[Any, Any], Any], outputs: Tree, y: Any) -> float:
    """The loss of the best constant answer; infinite where no answer has a finite loss.

    Resilient propagation (Riedmiller and Braun 1993) looks at signs of slopes alone, so that the
    scale of targets and losses does not matter: a step grows while its slope keeps its sign, and is
    halved when it changes. It goes from those of the starts that have the least losses, statistics
    of the targets in the units that outputs may have, and never loses the least loss it has seen.

    Args:
        loss: of outputs and targets, differentiable.
        outputs: of a network for these rows, an array or a tree of arrays; those with the rows
            first are answered by one row, repeated.
        y: targets, (rows, ...).
    """
    y = np.asarray(y)
    rows = len(y)
    leaves, structure = jax.tree.flatten(outputs)
    by_row = [np.shape(leaf)[:1] == (rows,) for leaf in leaves]

    def of_constant(answer: list[Any], y: Any) -> Any:
        spread = [
            jnp.broadcast_to(leaf, (rows, *leaf.shape)) if many else leaf
            for leaf, many in zip(answer, by_row, strict=True)
        ]
        value = loss(jax.tree.unflatten(structure, spread), y)
        return jnp.asarray(value).astype(jnp.float32).sum()

    first = [
        np.asarray(leaf, np.float64).mean(0) if many else np.asarray(leaf, np.float64)
        for leaf, many in zip(leaves, by_row, strict=True)
    ]
    starts = combined([starts_of(y, leaf) for leaf in first])
    size = sum(int(np.size(leaf)) for leaf in leaves)
    many = int(np.clip(NUMBERS // max(size, 1), 1, DESCENTS))

    def least(starts: list[Any], y: Any) -> Any:
        first = jax.lax.map(lambda start: of_constant(start, y), starts)
        best = jnp.argsort(jnp.where(jnp.isfinite(first), first, jnp.inf))[:many]
        chosen = [leaf[best] for leaf in starts]
        return jax.vmap(lambda start: descended(lambda a: of_constant(a, y), start))(chosen).min()

    return float(jax.jit(least)(starts, jnp.asarray(y)))


def starts_of(y: np.ndarray, first: np.ndarray) -> list[np.ndarray]:
    """Answers of the shape of one output that are best for some loss, or near to it.

    Mean, median and quantiles for distances, logarithms and log odds for losses of these, the
    logarithm of the variance for spreads, and logarithms of shares for classes.

    Args:
        y: targets, (rows, ...).
        first: the mean of the outputs before the first step.
    """
    values = np.asarray(y, np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    same = values[0].size == first.size
    # Targets of another width are all of them taken together.
    values = values.reshape(len(y), *first.shape) if same else values.reshape(-1, *[1] * first.ndim)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may hold no number at all
        mean, variance = np.nanmean(values, 0), np.nanvar(values, 0)
        low, median, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=0)
        geometric = np.expm1(np.nanmean(np.log1p(values), 0))
        logarithms = [np.log(mean), np.log(mean / (1 - mean)), np.log(variance)]
    starts = [first, 0.0, 0.5, mean, median, low, high, geometric, *logarithms]
    starts += [log_shares(y, first.shape[-1])] if first.ndim else []
    return [np.broadcast_to(finite(start), first.shape).astype(np.float32) for start in starts]


def finite(numbers: Any) -> np.ndarray:
    """The same with 0 for what is no number, and with the odds of a millionth for infinities."""
    return np.nan_to_num(numbers, neginf=-14.0, posinf=14.0)


def log_shares(y: np.ndarray, width: int) -> np.ndarray:
    """The logarithm of each class's share of the rows, where targets are numbers of classes."""
    whole = y.astype(np.float64).ravel()
    whole = whole[(whole >= 0) & (whole < width) & (whole % 1 == 0)].astype(int)
    with np.errstate(divide="ignore"):
        return np.log(np.bincount(whole, minlength=width) / max(len(whole), 1))


def combined(starts: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Starts of a tree: each of one array with each of the others, or some of these, stacked."""
    count = len(starts[0])
    if count ** len(starts) <= PAIRS:
        chosen = np.array(list(product(*(range(len(each)) for each in starts))))
    else:
        chosen = np.random.default_rng(0).integers(0, 1 << 30, (PAIRS, len(starts)))
        chosen[0] = 0
        chosen %= [len(each) for each in starts]
    return [np.stack([each[i] for i in chosen[:, at]]) for at, each in enumerate(starts)]


def descended(loss: Callable[[Tree], Any], start: Tree) -> Any:
    """The least loss on the way down from a start; see `least_constant_loss`."""
    slope_of = jax.value_and_grad(loss)

    def begun() -> Descent:
        step = jax.tree.map(lambda leaf: 0.1 * jnp.abs(leaf) + 0.01, start)
        nothing = jax.tree.map(jnp.zeros_like, start)
        inf = jnp.float32(jnp.inf)
        return Descent(start, nothing, step, nothing, inf, inf, jnp.int32(0))

    def goes_on(at: tuple[Any, Descent]) -> Any:
        return (at[0] < TURNS) & (at[1].still < PATIENCE)

    def turn(at: tuple[Any, Descent]) -> tuple[Any, Descent]:
        number, now = at
        answer = jax.tree.map(jnp.add, now.answer, now.move)
        value, slope = slope_of(answer)
        fine = jnp.isfinite(value)
        for leaf in jax.tree.leaves(slope):
            fine &= jnp.isfinite(leaf).all()

        def stepped(step: Any, slope: Any, before: Any) -> Any:
            kept = jnp.sign(slope) * jnp.sign(before)
            factor = jnp.where(kept > 0, GROWTH, jnp.where(kept < 0, SHRINKAGE, 1.0))
            return step * jnp.where(fine, factor, SHRINKAGE)

        def chosen(new: Tree, old: Tree) -> Tree:
            return jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)

        step = jax.tree.map(stepped, now.step, slope, now.slope)
        onward = jax.tree.map(lambda length, leaf: -length * jnp.sign(leaf), step, slope)
        back = jax.tree.map(lambda leaf: SHRINKAGE * leaf, now.move)
        least = jnp.where(jnp.isfinite(value), jnp.minimum(now.least, value), now.least)
        fell = least < now.mark - FALL * jnp.abs(least)
        return number + 1, Descent(
            chosen(answer, now.answer),
            chosen(onward, back),
            step,
            chosen(slope, now.slope),
            least,
            jnp.where(fell, least, now.mark),
            jnp.where(fell, 0, now.still + 1),
        )

    return jax.lax.while_loop(goes_on, turn, (jnp.int32(0), begun()))[1].least
