"""What test_devices.py asks of eight devices, in a process of its own; JSON lines."""

import json
import sys

import jax
import numpy as np

from nnref.data import Stored
from nnref.experiment.experiment import Experiment
from nnref.studies.run import plan_of
from nnref.training import checkpoint, devices, loop, stream, train
from nnref.training.setup import from_experiment
from nnref.training.task import Task

CONTENT = {
    "data": {"name": "spirals", "points": 30, "valid": 0.3},  # 42 rows to train: 10, 10, 10, 10, 2
    "model": {"name": "mlp", "hidden": [16]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.2, "momentum": 0.5},
    "regularization": {"normalization": "batch"},
    "batch_size": 10,
    "epochs": 40,
    "probes": "off",
}


def fitted(task, resume=None, fit=loop.fit, **changes):
    """The training losses of all epochs, and the states after the last."""
    experiment = Experiment(**CONTENT | changes)
    _, setup, _ = from_experiment(experiment)
    plan, losses, states = plan_of(experiment), [], None
    for chunk in fit(setup, plan, experiment.hyperparameters, [0], task, resume):
        losses += [float(loss) for loss in chunk.history["train_loss"][:, 0]]
        states = chunk.states
    return losses, states


def gradients(task, count):
    """Those of the loss over seven rows, on so many devices."""
    experiment = Experiment(**CONTENT)
    setup = devices.spread(
        from_experiment(experiment)[1], plan_of(experiment)._replace(devices=count)
    )
    functions, optimizer = setup(experiment.hyperparameters)
    params, model_state = functions.init(jax.random.key(3))
    state = train.TrainState(params, model_state, (), jax.random.key(0), True, 0.0, 0, None)

    def of(params, x, y):
        return train.objective_of(functions, state, x, y, jax.random.key(1))(params)[0]

    data = devices.placed(setup, {"x": task.train.x[:7], "y": task.train.y[:7]})
    return jax.tree.leaves(jax.jit(jax.grad(of))(params, data["x"], data["y"]))


def main(folder):
    """Print each answer as a line of JSON."""
    task, setup, _ = from_experiment(Experiment(**CONTENT))

    def tell(**answer):
        print(json.dumps(answer), flush=True)

    alone, many = gradients(task, 1), {n: gradients(task, n) for n in (2, 4, 8)}
    scale = max(float(np.abs(leaf).max()) for leaf in alone)
    for n, found in many.items():
        pairs = zip(alone, found, strict=True)
        tell(gradient=n, apart=max(float(np.abs(a - b).max()) for a, b in pairs) / scale)
    expected, _ = fitted(task)
    tell(losses=1, values=expected)
    for n in (2, "all"):
        tell(losses=n, values=fitted(task, devices=n)[0])
    halfway, states = fitted(task, devices=4, shard="params", epochs=20)
    for name in ("params", "opt_state"):
        leaves = jax.tree.leaves(getattr(states, name))
        tell(shards=name, axes=[[*leaf.shape, *leaf.sharding.spec] for leaf in leaves])
    checkpoint.save(folder, 20, states)
    resume = checkpoint.restore(folder, jax.eval_shape(lambda: states))
    rest, _ = fitted(task, resume, devices=2)
    tell(losses="4 shards, then 2 devices", values=halfway + rest)
    stored = Stored(
        len(task.train.x),
        lambda rows: task.train._replace(x=task.train.x[rows], y=task.train.y[rows]),
        "",
    )
    streamed = Task(task.functions, task.train, task.valid, stored=stored)
    tell(losses="stream", values=fitted(streamed, None, stream.fit, devices=4)[0])


if __name__ == "__main__":
    main(sys.argv[1])
