"""The same work in Keras 3 on its JAX backend: one `fit`, with a validation after every epoch."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it once, when it is imported
import keras

if TYPE_CHECKING:
    from run import Curves, Work


class InOrder(keras.utils.PyDataset):
    """The batches of every epoch, in the order that all contenders share.

    Measured to be as fast as handing the arrays over and letting Keras shuffle.
    """

    def __init__(self, work: Work):
        super().__init__()
        self.work, self.batch_size = work, work.experiment.batch_size
        self.deal(0)

    def deal(self, epoch: int, logs: object = None) -> None:
        """Put the rows into the order of an epoch; Keras calls its own hooks more than once."""
        order = self.work.orders[epoch]
        self.x, self.y = (array[order] for array in self.work.task.train)

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.x[rows], self.y[rows]


def contender(work: Work) -> Callable[[], Callable[[], Curves]]:
    """What prepares a run and gives the function to be timed; the model is compiled once."""
    model = compiled(work)
    weights = [array for pair in work.weights for array in pair]
    model.optimizer.build(model.trainable_variables)
    at_start = [np.array(variable) for variable in model.optimizer.variables]

    def prepare() -> Callable[[], Curves]:
        model.set_weights(weights)
        for variable, value in zip(model.optimizer.variables, at_start, strict=True):
            variable.assign(value)
        batches = InOrder(work)

        def run() -> Curves:
            history = model.fit(
                batches,
                epochs=work.experiment.epochs,
                shuffle=False,
                callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=batches.deal)],
                validation_data=tuple(work.task.valid),
                validation_batch_size=len(work.task.valid.x),
                verbose=0,
            ).history
            return np.array(history["loss"]), np.array(history["val_loss"])

        return run

    return prepare


def compiled(work: Work) -> keras.Model:
    """The network with its loss and optimizer; an epoch of updates is one execution."""
    *hidden, (_, last) = work.weights
    activation = work.experiment.model.activation.name
    model = keras.Sequential(
        [
            keras.Input(work.task.train.x.shape[1:]),
            *(keras.layers.Dense(len(bias), activation) for _, bias in hidden),
            keras.layers.Dense(len(last)),
        ]
    )
    its = work.experiment.optimizer
    if its.name == "sgd":
        optimizer = keras.optimizers.SGD(its.learning_rate, momentum=its.momentum)
    else:
        optimizer = keras.optimizers.Adam(
            its.learning_rate, beta_1=its.beta1, beta_2=its.beta2, epsilon=its.epsilon
        )
    losses = {
        "sigmoid_cross_entropy": keras.losses.BinaryCrossentropy,
        "softmax_cross_entropy": keras.losses.SparseCategoricalCrossentropy,
    }
    model.compile(
        optimizer=optimizer,
        loss=losses[work.experiment.loss.name](from_logits=True),
        steps_per_execution=work.setup.steps_per_epoch,
    )
    return model
