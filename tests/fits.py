"""A small experiment, built and fitted chunk by chunk."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from nnref.experiment.experiment import parse
from nnref.training import loop, train
from nnref.training.setup import from_experiment
from nnref.training.task import Task

CLASSES = {
    "data": {"name": "spirals", "points": 23, "valid": 0.3, "test": 0.1},
    "model": {"name": "mlp", "hidden": [5]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.01},
    "batch_size": 8,
    "epochs": 6,
}


def built(**changes):
    experiment = parse(json.dumps(CLASSES | changes))
    task, setup, _ = from_experiment(experiment)
    parts = (jax.tree.map(jnp.asarray, part) for part in (task.train, task.valid, task.test))
    return experiment, Task(task.functions, *parts), setup


def plan_of(experiment):
    return train.Plan(
        experiment.batch_size, experiment.epochs, experiment.evaluate_every, experiment.stop
    )


def fitted(experiment, task, setup, seeds=(0,), resume=None, stop_after=None):
    """History of all chunks, measure -> (epochs + 1, runs), and the last chunk."""
    chunks = []
    for chunk in loop.fit(
        setup, plan_of(experiment), experiment.hyperparameters, seeds, task, resume
    ):
        chunks.append(chunk)
        if stop_after is not None and chunk.first + len(chunk.active) > stop_after:
            break
    history = {n: np.concatenate([c.history[n] for c in chunks]) for n in chunks[0].history}
    return history, chunks
