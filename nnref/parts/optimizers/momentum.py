"""Optimizers that step along a velocity: gradient descent with momentum, Lion."""

import optax

from nnref.bounds import Fraction, Positive
from nnref.errors import UserError
from nnref.parts.optimizers.rule import Optimizer


def sgd(
    *,
    learning_rate: Positive = 0.1,
    momentum: Fraction = 0.0,
    dampening: Fraction | None = None,
    nesterov: bool = False,
) -> Optimizer:
    """Gradient descent with momentum: m = mu m + (1 - dampening) g; theta -= alpha m.

    Polyak 1964, as Sutskever et al. 2013 write it (equations 1 and 2). Nesterov's form steps along
    g + mu m instead of m (equations 3 and 4, with theta at the point looked ahead to, as PyTorch,
    Keras and optax have it).

    Undamped, a momentum of 0.9 makes the long-run step ten times larger; a dampening equal to the
    momentum makes m an average. PyTorch leaves the very first gradient undamped, here all are
    damped. At a change of rate Keras, which keeps alpha inside its velocity, goes another way.

    Args:
        learning_rate: alpha.
        momentum: mu, the share of the velocity that is kept at each step.
        dampening: share of each gradient that does not enter the velocity.
        nesterov: look ahead along the velocity.
    """
    direction = optax.trace(decay=momentum, nesterov=nesterov)
    if dampening is not None:
        if nesterov:
            raise UserError("optimizer sgd: nesterov has no dampening; drop one of the two")
        direction = optax.chain(optax.scale(1.0 - dampening), direction)
    return Optimizer(learning_rate, direction)


def lion(
    *, learning_rate: Positive = 1e-4, beta1: Fraction = 0.9, beta2: Fraction = 0.99
) -> Optimizer:
    """Lion: theta -= alpha sign(beta1 m + (1 - beta1) g); then m = beta2 m + (1 - beta2) g.

    Chen et al. 2023, algorithm 2. Its decoupled decay is `regularization.weight_decay`. Every
    weight moves by alpha at every step, so the authors advise a rate 3 to 10 times lower than
    AdamW's, and a decay as many times higher. A gradient of 0 from the start moves nothing.

    Args:
        learning_rate: alpha, the size of every step of every weight.
        beta1: share of the velocity in the sign.
        beta2: decay of the velocity.
    """
    return Optimizer(learning_rate, optax.scale_by_lion(b1=beta1, b2=beta2))
