"""A training set-up in parts, each of which a fault may replace."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import optax

from benchmarks.mutants.data import Data


def nothing(value: Any) -> Any:
    return value


def no_penalty(params: Any) -> float:
    return 0.0


@dataclass(frozen=True)
class Wiring:
    """What the networks of all families and styles are made from; each heeds what it has."""

    outputs: int
    width: int = 32
    depth: int = 2
    activation: Callable = jax.nn.relu
    final: Callable = nothing  # after the last layer
    between: Callable = nothing  # after the first hidden layer
    dropout: float = 0.0
    dropout_always: bool = False  # in evaluation as well
    dropout_key: int | None = None  # drawn from this seed, whatever key is passed
    norm: str = ""  # "batch" or "layer"
    momentum: float = 0.9  # of running statistics
    cell: str = "gru"  # "simple", "gru" or "lstm"
    pool: str = "last"  # what a reader of sequences keeps: "last", "mean" or "max"
    vocabulary: int = 0
    code: int = 4  # numbers in the code of an autoencoder
    each_step: bool = False  # an output for each step
    causal: bool = False  # no step sees a later one
    time_axis: int = 1
    positions: str = "steps"  # what a position of attention counts: "steps" or "rows"
    seen: Callable = lambda tokens: tokens != 0  # which tokens are no padding


@dataclass(frozen=True)
class Steps:
    """How updates are made from gradients."""

    name: str = "adam"
    rate: float = 3e-3
    schedule: Callable | None = None  # (rate, steps in all) -> schedule
    clip: float | None = None
    decay: float = 1e-2  # of adamw alone
    after: Callable = nothing  # of the whole transformation, to another one

    def transformation(self, total: int) -> optax.GradientTransformation:
        rate = self.rate if self.schedule is None else self.schedule(self.rate, total)
        made = OPTIMIZERS[self.name](rate, self)
        if self.clip is not None:
            made = optax.chain(optax.clip_by_global_norm(self.clip), made)
        return self.after(made)


OPTIMIZERS: dict[str, Callable] = {
    "sgd": lambda rate, steps: optax.sgd(rate),
    "momentum": lambda rate, steps: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate, steps: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adam": lambda rate, steps: optax.adam(rate),
    "adamw": lambda rate, steps: optax.adamw(rate, weight_decay=steps.decay),
    "rmsprop": lambda rate, steps: optax.rmsprop(rate, decay=0.9),
}


@dataclass(frozen=True)
class Setup:
    """The parts of a program. A healthy set-up leaves the last four as they are."""

    source: str
    style: str
    family: str
    data: Data
    wiring: Wiring
    loss: Callable
    loss_name: str
    metric: Callable
    steps: Steps
    batch_size: int
    epochs: int
    shuffle: bool = True
    penalty: Callable = no_penalty
    look: Callable = nothing  # what the network does with its inputs first
    start: Callable = nothing  # the first parameters, from those of the layers
    carry: Callable = field(default=lambda before, after: after)  # the state that is kept
    mode: Callable = nothing  # the mode that the network is called in

    @property
    def total_steps(self) -> int:
        return max(1, len(self.data.train[0]) // self.batch_size) * self.epochs
