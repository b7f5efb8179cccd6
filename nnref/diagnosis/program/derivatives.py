"""Derivatives of a network that stand in its loss: the residuals of differential equations."""

from collections.abc import Iterator

import jax
import numpy as np

from nnref.diagnosis.findings import Finding, fault
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.internals import is_derivative

BROKEN = {"max", "min", "abs", "clamp", "sign", "gt", "ge", "lt", "le"}  # of straight pieces
DRAWS = 3  # of the parameters


def derivatives(start: AtStart | LossAtStart) -> Iterator[Finding]:
    """Derivatives in the loss that are 0 for all rows and parameters.

    A network of straight pieces has no second derivative: the residual of an equation of second
    order then teaches nothing.
    """
    if isinstance(start, AtStart) and start.recipe.replayed:
        return  # its operations were traced within a derivative, all of them
    traced = start.training
    derived = [op for op in traced.operations if is_derivative(op.equation)]
    if not any(op.name in BROKEN for op in derived):
        return
    # What is 0 by structure is no operation of the derivative, but a constant on its line.
    lines, moving = {line for op in derived for line in op.frames}, traced.reached(traced.inputs)
    derived += [
        op
        for op in traced.operations
        if op.where in lines and moving.isdisjoint(op.outputs) and op.name == "broadcast_in_dim"
    ]
    inside = {id(op) for op in derived}
    needed, consumers = traced.needed(traced.outputs[:1]), traced.consumers()
    leaving = {
        value: op
        for op in derived
        for value in op.outputs
        if value in needed
        and traced.size(value) > 1
        and any(id(other) not in inside for other in consumers.get(value, ()))
    }
    if not leaving:
        return
    params, *rest = start.arguments
    key = jax.random.key(0)
    evaluate = jax.jit(
        lambda params: traced.evaluate(jax.tree.leaves((params, *rest, key)), list(leaving))
    )
    silent = set(leaving)
    for seed in range(DRAWS):
        values = evaluate(beside(params, 1.0, seed))
        silent &= {
            value for value, got in zip(leaving, values, strict=True) if not np.any(np.asarray(got))
        }
    operation = next((leaving[value] for value in leaving if value in silent), None)
    if operation is not None:
        yield fault(
            "hidden_activation_mismatch",
            operation.where or start.loss_line,
            "a derivative of the network in the loss is 0 for all rows, whatever the parameters: "
            "the network is made of straight pieces, which do not bend",
            "exactly 0",
            healthy="a derivative that changes with the parameters",
            remedy="jnp.tanh, jnp.sin or jax.nn.softplus in the place of jax.nn.relu",
            confidence=0.95,
        )
