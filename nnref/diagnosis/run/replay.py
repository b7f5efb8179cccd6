"""The first step with a number that is not finite, taken again: where is the number born?"""

from typing import Any, NamedTuple

import jax

from nnref.diagnosis.program.birth import Birth, birth_of
from nnref.diagnosis.program.updates import of_schedule
from nnref.diagnosis.run.changes import Change
from nnref.diagnosis.run.trials import Trainer
from nnref.parts.chain import updated
from nnref.training.train import TrainState, objective_of

LONGEST = 20_000  # steps that are taken again


class BadStep(NamedTuple):
    """What a step begins with that ends in numbers that are not finite."""

    number: int  # from 1
    state: TrainState
    x: Any
    y: Any
    key: Any


class BirthInRun(NamedTuple):
    """Where a number that is not finite is born, and whether a schedule of the optimizer is."""

    step: int
    birth: Birth
    schedule: bool


def bad_step(trainer: Trainer, network: tuple[Any, Any]) -> BadStep | None:
    """The first step of a training from this network that gives a number that is not finite."""
    carry, change = trainer.start(network), trainer.change(Change())
    x, y = trainer.recipe.train
    data = trainer.data(x[None], y[None], carry.state)
    taken = 0
    for _ in range(trainer.recipe.epochs):
        state, key, order = trainer.begin_epoch(carry, data, change)
        inner, number = (state, jax.numpy.int32(1)), 0
        for first in range(0, trainer.rows, trainer.batch):
            before, number, taken = inner[0], number + 1, taken + 1
            rows = order[first : first + trainer.batch]
            inner, sums = trainer.step(inner, key, rows, data, change)
            if not sums["probes"].finite.all():
                inputs, targets = data["inputs"][0, rows], data["targets"][0, rows]
                return BadStep(taken, before, inputs, targets, jax.random.fold_in(key, number))
            if taken >= LONGEST:
                return None
        carry = carry._replace(state=inner[0], epoch=carry.epoch + 1)
    return None


def birth_in_run(trainer: Trainer, network: tuple[Any, Any]) -> BirthInRun | None:
    """The operation at which the first number that is not finite is born.

    The program of the step is looked at operation by operation: outputs, loss and gradient at the
    parameters before the step, and the optimizer where all of these are finite.

    Args:
        trainer: of the run.
        network: parameters and state from which the run began.

    Returns:
        None where no such step comes again.
    """
    bad = bad_step(trainer, network)
    if bad is None:
        return None
    recipe = trainer.recipe
    functions, optimizer = trainer.setup(Change(), dict(recipe.hyperparameters))
    state = bad.state

    def slopes(params: Any, model_state: Any, x: Any, y: Any) -> Any:
        now = state._replace(params=params, model_state=model_state)
        objective = objective_of(functions, now, x, y, bad.key)
        (total, (outputs, *_)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        return outputs, total, gradient

    arguments = state.params, state.model_state, bad.x, bad.y
    birth = birth_of(slopes, *arguments)
    if birth is not None:
        return BirthInRun(bad.number, birth, False)
    _, total, gradient = jax.jit(slopes)(*arguments)

    def update(params: Any, gradient: Any, opt_state: Any) -> Any:
        return updated(optimizer, gradient, opt_state, params, value=total)[0]

    of_update = state.params, gradient, state.opt_state
    birth = birth_of(update, *of_update)
    return None if birth is None else BirthInRun(bad.number, birth, of_schedule(birth, of_update))
