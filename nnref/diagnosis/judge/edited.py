"""A task that is not learned, with small edits of its functions, judged by its skill."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.one_edit.judging import cured
from nnref.diagnosis.one_edit.scale import Scale
from nnref.diagnosis.one_edit.search import STARTED, Trained, functions_of
from nnref.diagnosis.thresholds import bound
from nnref.training.train import TrainState, train_step
from nnref.training.work import work_of

SECONDS = 10.0  # of an idle core, for the first runs of all edits
STEPS = 1000  # of the first runs of some fifty edits: where a task has learned, they must be cheap
ERRORS = "your metric"
ROWS = 1024  # of a split, on which a network is scored


def one_edit(measured: Measurements, learned: bool) -> list[Finding]:
    """The edit of one expression with which a task is learned that is not, or in part alone.

    Args:
        measured: the task, its run, and how skill is counted.
        learned: whether it learns as much as simple models do.

    Raises:
        Exception: where its step cannot be traced with its edits.
    """
    if measured.recipe.setup is not None:
        return []  # of an experiment: its functions are nnref's
    training = trained(measured)
    start = training.start(0)
    scale = Scale("skill", larger_is_better=True, start=0.0)
    if own_errors(measured):
        scale = Scale(ERRORS, False, training.score(start)[ERRORS])
    reached = min(o.skill for o in (measured.trained, measured.validated) if o is not None)
    seconds = SECONDS * measured.effort
    if learned:
        little_room = own_errors(measured) or reached > bound("well learned")
        if little_room or measured.effort < 1 or work_of_a_step(training) * STEPS > seconds:
            return []
    ran = functions_of(training)
    found = cured(training, ran, scale, seconds)
    # What is learned in part may be all that can be: then an edit must bring most of the rest.
    if found is None or learned and 1 + found.error > bound("most of the rest") * (1 - reached):
        return []
    return [found.finding]


def work_of_a_step(training: Trained) -> float:
    """The seconds that a step takes, counted and not timed."""
    step = jax.make_jaxpr(training.step)(training.start(0), training.batch(0, 0), training.key)
    return work_of(step.jaxpr, STARTED)[0]


def own_errors(measured: Measurements) -> bool:
    """Whether the user's metric counts errors, of which not every output needs to have a part."""
    return measured.recipe.metric is not None and measured.skill.errors_counted


def trained(measured: Measurements) -> Trained:
    """The task as a training, scored on the worse split: by the user's errors, or by its skill."""
    recipe = measured.recipe
    functions, optimizer = recipe.build(recipe.hyperparameters)
    x, y = recipe.train
    size = min(recipe.batch_size, len(x))
    count = len(x) // size
    splits = [(part[0][:ROWS], part[1][:ROWS]) for part in (recipe.train, recipe.valid) if part]

    def start(seed: int) -> Any:
        params, state = functions.init(jax.random.key(recipe.seed + seed))
        return jax.tree.map(jnp.asarray, (params, state, optimizer.init(params)))

    def step(arrays: Any, batch: Sequence[Any], key: Any) -> Any:
        params, state, opt_state = arrays
        begun = TrainState(
            params, state, opt_state, key, jnp.bool_(True), jnp.float32(0), jnp.int32(0), None
        )
        x, y = batch
        after, _ = train_step(functions, optimizer, begun, x, y, key)
        return after.params, after.model_state, after.opt_state

    def batch(place: int, seed: int) -> list[Any]:
        order = np.random.default_rng([seed, place // count]).permutation(len(x))
        rows = order[place % count * size :][:size]
        return [jnp.asarray(x[rows]), jnp.asarray(y[rows])]

    def score(arrays: Any) -> dict[str, float]:
        params, state, _ = arrays
        if recipe.metric is not None and own_errors(measured):
            made = [measured.skill.outputs_at(params, state, rows, False) for rows in splits]
            return {ERRORS: max(float(recipe.metric(*rows)) for rows in made)}
        outcomes = [measured.skill.outcome(params, state, rows) for rows in splits]
        return {"skill": min(outcome.skill for outcome in outcomes)}

    return Trained(start, step, batch, score, jax.random.key(recipe.seed))
