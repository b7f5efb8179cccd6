"""A program that no step can be made of, told as the user's own."""

import re
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.findings import PACKAGE, Finding, fault
from nnref.diagnosis.program.tracing import is_library, name_of, trace
from nnref.diagnosis.recipe import Recipe
from nnref.errors import UserError
from nnref.parts.chain import updated

# Where JAX says that a value was made which a function has kept from one call to the next.
LEFT_BEHIND = re.compile(r"was created on line (.+?:\d+)(?::\d+)? \(")


def broken(error: Exception, what: str = "your program") -> Finding:
    """A user's exception as a finding, with the user's own file and line, or else with `what`.

    Raises:
        UserError: where that is what it is.
    """
    if isinstance(error, UserError):
        raise error
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(PACKAGE)
    ]
    theirs = [frame for frame in frames if not is_library(frame.filename)]
    frame = (theirs or frames or [None])[-1]  # what the user gave may be a library's own function
    where = what if frame is None else f"{frame.filename}:{frame.lineno}"
    if isinstance(error, jax.errors.UnexpectedTracerError):
        left = LEFT_BEHIND.search(str(error))
        where = left[1] if left else where
    message = str(error).strip().splitlines() or [type(error).__name__]
    return fault(
        "broken_program",
        where,
        f"{type(error).__name__}: {message[0]}",
        measured="" if frame is None else (frame.line or "").strip(),
    )


def broken_program(recipe: Recipe) -> Finding | None:
    """Why a plain step of the user's own functions cannot be made, where it cannot.

    Raises:
        UserError: for a mistake that has a sentence of its own.
    """
    try:
        return without_gradient(recipe) or plain_step(recipe)
    except UserError:
        raise
    except Exception as error:  # whatever the user's functions raise is what was found
        return broken(error)


def without_gradient(recipe: Recipe) -> Finding | None:
    """Parameters or a loss of which there is no gradient.

    Raises:
        UserError: for a penalty that is no number.
    """
    x, y = (jnp.asarray(part[: recipe.batch_size]) for part in recipe.train)
    key = jax.random.key(0)
    params, state = jax.eval_shape(recipe.init, key)
    leaves = jax.tree.leaves_with_path(params)
    if not any(np.prod(leaf.shape) for _, leaf in leaves):
        return fault("broken_program", "init", "it gives no parameters: there is nothing to train")
    for path, leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return fault(
                "broken_program",
                name_of(path),
                f"among the parameters is one of {leaf.dtype}, of which there is no gradient",
                remedy="parameters of floating-point numbers; counters, flags and keys into the "
                "state: init gives (params, state), apply(params, state, x) gives (outputs, state)",
            )
    penalty = jax.eval_shape(lambda params: number(recipe.penalty(params)), params)
    if penalty.shape or jnp.issubdtype(penalty.dtype, jnp.complexfloating):
        shape = f"{penalty.dtype} of shape {penalty.shape}"
        raise UserError(f"diagnose: penalty(params) gave {shape}; it is one number")
    outputs, _ = jax.eval_shape(lambda p, s: recipe.apply(p, s, x, key, True), params, state)
    loss = jax.eval_shape(recipe.loss, outputs, y)
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        lines = [op.where for op in trace(recipe.loss, outputs, y).operations if op.where]
        return fault(
            "broken_program",
            lines[-1] if lines else "loss",
            f"the loss is of {loss.dtype}, of which there is no gradient",
            remedy="a loss of floating-point numbers; of complex outputs, jnp.abs(outputs) ** 2",
        )
    return None


def number(penalty: Any) -> Any:
    """A penalty as an array.

    Raises:
        UserError: for what is no number.
    """
    try:
        return jnp.asarray(penalty)
    except (TypeError, ValueError):
        kind = type(penalty).__name__
        raise UserError(f"diagnose: penalty(params) gave a {kind}; it is one number") from None


def plain_step(recipe: Recipe) -> None:
    """One step as a user would write it, and the answers for a few validation rows.

    Raises:
        Exception: what the user's own functions raise.
    """
    x, y = (jnp.asarray(part[: recipe.batch_size]) for part in recipe.train)

    def step(key: Any) -> Any:
        params, state = recipe.init(key)

        def objective(params: Any) -> Any:
            outputs, _ = recipe.apply(params, state, x, key, True)
            return jnp.sum(recipe.loss(outputs, y)) + jnp.sum(recipe.penalty(params))

        gradient = jax.grad(objective)(params)
        opt_state = recipe.optimizer.init(params)
        for leaf in jax.tree.leaves(opt_state):
            if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
                kind = type(leaf).__name__
                raise UserError(
                    f"diagnose: the optimizer's state holds a {kind}, which is no array"
                )
        updates, opt_state = updated(recipe.optimizer, gradient, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    params, state, _ = jax.eval_shape(step, jax.random.key(0))
    if recipe.valid is not None:
        rows = jnp.asarray(recipe.valid[0][: recipe.batch_size])
        jax.eval_shape(lambda p, s: recipe.apply(p, s, rows, None, False), params, state)
