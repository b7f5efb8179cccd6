"""Optimizers: the direction of a step, and the one chain that a step is.

    regularize -> clip -> direction -> decoupled decay -> x rate x schedule -> x -1

A member of the family gives the direction and the rate; `chain.py` puts the rest around it.
Where optax has the direction as the paper writes it, it is used; the others are written here, each
as the rule of one array, in the paper's symbols.

theta are the parameters, g is the gradient (of the loss with its coupled terms), m and v are the
moments, alpha is the learning rate, t counts from 1. Squares, roots, quotients and powers are
elementwise.
"""

from nnref.parts.optimizers.adam import adam, adamax, adamw, amsgrad, nadam, padam, radam
from nnref.parts.optimizers.adaptive import adadelta, adagrad, rmsprop
from nnref.parts.optimizers.momentum import lion, sgd
from nnref.parts.optimizers.muon import muon
from nnref.parts.optimizers.rule import Optimizer
from nnref.parts.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd

OPTIMIZERS = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "adam": adam,
    "adamw": adamw,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "amsgrad": amsgrad,
    "padam": padam,
    "lion": lion,
    "muon": muon,
    "schedule_free_sgd": schedule_free_sgd,
    "schedule_free_adamw": schedule_free_adamw,
}

__all__ = ["OPTIMIZERS", "Optimizer"]
