"""Decay of the weights: what an optimizer adds of the parameters to a gradient or to a step."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.program.tracing import Operation, Trace, trace
from nnref.parts.chain import updated

SUMS = {"add", "add_any", "sub"}


class Decay(NamedTuple):
    """The decay of an optimizer, at a gradient.

    `coefficient` is what the parameters are multiplied by, the largest of all leaves; `beside` is
    how long what is added is, over what it is added to: the gradient for an L2 penalty, the step
    for decoupled decay.
    """

    coefficient: float
    beside: float


def decays(optimizer: Any, params: Any) -> bool:
    """Whether all that an optimizer does with the parameters is to add multiples of them.

    Then it is the same optimizer without its decay once it is shown zeros in their place. A trust
    ratio, a projection or an average of the weights are other uses.
    """
    added = list(additions(traced_update(optimizer, params)))
    return bool(added) and None not in added


def decay_of(optimizer: Any, params: Any, gradient: Any) -> Decay:
    """What the first update of an optimizer that `decays` adds of the parameters."""
    traced = traced_update(optimizer, params)
    products, others, factors = zip(*filter(None, additions(traced)), strict=True)
    leaves = jax.tree.leaves((gradient, optimizer.init(params), params))
    values = traced.evaluate(leaves, [*products, *others, *factors])
    flat = [np.ravel(np.asarray(value, float)) for value in values]
    count = len(products)
    product, other = (np.concatenate(flat[i * count : (i + 1) * count]) for i in (0, 1))
    beside = np.linalg.norm(product) / max(float(np.linalg.norm(other)), 1e-30)
    return Decay(max(float(np.abs(factor).max()) for factor in flat[2 * count :]), float(beside))


def traced_update(optimizer: Any, params: Any) -> Trace:
    """The program of an update: arguments gradient, state, parameters; its result the new state."""
    arguments = params, optimizer.init(params), params
    return trace(lambda *each: updated(optimizer, *each, value=jnp.zeros(())), *arguments)


def additions(traced: Trace) -> Iterator[tuple[int, int, int] | None]:
    """Each use of a parameter: the multiple, what it is added to, the factor; None for another."""
    gradient, _, parameters = traced.arguments
    moving, needed = traced.reached([*gradient, *parameters]), traced.needed(traced.outputs)
    consumers = traced.consumers()

    def uses(value: int) -> list[Operation]:
        return [use for use in consumers.get(value, []) if not needed.isdisjoint(use.outputs)]

    if not set(parameters).isdisjoint(traced.outputs):
        yield None
    for parameter in parameters:
        for use in uses(parameter):
            factors = [value for value in use.inputs if value not in moving]
            sums = [each for output in use.outputs for each in uses(output)]
            if use.name != "mul" or len(factors) != 1 or {each.name for each in sums} - SUMS:
                yield None
                continue
            (product,) = use.outputs
            for each in sums:
                yield product, sum(each.inputs) - product, factors[0]
