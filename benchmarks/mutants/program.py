"""The program that the parts of a set-up make: plain functions, data, and how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass

import optax

from benchmarks.mutants.data import Rows
from benchmarks.mutants.networks import network
from benchmarks.mutants.setup import Setup


@dataclass(frozen=True)
class Program:
    """What an author has: the fields that a recipe is made from."""

    init: Callable
    apply: Callable
    loss: Callable
    penalty: Callable
    optimizer: optax.GradientTransformation
    train: Rows
    valid: Rows
    task: str | None
    metric: Callable
    batch_size: int
    epochs: int
    shuffle: bool = True


def program_of(setup: Setup) -> Program:
    made, called = network(setup.style, setup.family, setup.wiring, setup.data.train[0])

    def init(key):
        params, state = made(key)
        return setup.start(params), state

    def apply(params, state, x, key, train):
        outputs, after = called(params, state, setup.look(x), key, setup.mode(train))
        return outputs, setup.carry(state, after)

    kind = "multiclass" if setup.data.kind == "next" else setup.data.kind
    return Program(
        init=init,
        apply=apply,
        loss=setup.loss,
        penalty=setup.penalty,
        optimizer=setup.steps.transformation(setup.total_steps),
        train=setup.data.train,
        valid=setup.data.valid,
        task=None if setup.family == "vae" else kind,
        metric=setup.metric,
        batch_size=setup.batch_size,
        epochs=setup.epochs,
        shuffle=setup.shuffle,
    )
