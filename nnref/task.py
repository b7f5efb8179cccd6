"""Task: what is learned. From here on an experiment file and a user's own functions are the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from nnref.data import Dataset, Split
from nnref.experiment import Experiment
from nnref.losses import LOSSES, TARGETS
from nnref.metrics import METRICS, Metric
from nnref.optimizers import chain
from nnref.regularizers import Regularization, gradient_terms

Array = jax.Array
Tree = Any


class Functions(NamedTuple):
    """The functions of a task, all pure, all traced into the program.

    `init(key)` gives `(params, model_state)`; `apply(params, model_state, x, key, train)` gives
    `(outputs, model_state)`; `loss(outputs, targets)` a scalar, the mean over the batch.
    """

    init: Callable[[Array], tuple[Tree, Tree]]
    apply: Callable[[Tree, Tree, Array, Array | None, bool], tuple[Array, Tree]]
    loss: Callable[[Array, Array], Array]
    metrics: Mapping[str, Metric] = {}


class Task(NamedTuple):
    """Functions and arrays. `train`, `valid` and `test` are `(x, y)`, rows first.

    `dataset` is what they were made from, where they come from an experiment file.
    """

    functions: Functions
    train: Split
    valid: Split | None = None
    test: Split | None = None
    dataset: Dataset | None = None


@dataclass(frozen=True)
class Setup:
    """What a program is built from: called with numbers, it gives functions and optimizer.

    Two setups of the same structure are equal, so that JAX compiles once for both: the numbers
    come as arguments of the program.
    """

    structure: str
    inputs: tuple[int, ...]
    outputs: int
    classes: int
    steps: int
    steps_per_epoch: int
    experiment: Experiment = field(compare=False, repr=False)

    def __call__(
        self, numbers: Mapping[str, Any]
    ) -> tuple[Functions, optax.GradientTransformation]:
        """Functions and optimizer with these numbers, which may be traced."""
        return self.functions(numbers), self.optimizer(numbers)

    def functions(self, numbers: Mapping[str, Any]) -> Functions:
        """Model, loss and metrics."""
        loss = self.experiment.bind("loss", numbers)
        decide = TARGETS[self.experiment.loss.name].decide
        metric = "accuracy" if self.classes else "r2"
        build = self.experiment.bind("model", numbers)

        def model(key: Array) -> nnx.Module:
            return build(self.inputs, self.outputs, nnx.Rngs(params=key))

        def split(module: nnx.Module) -> tuple[Any, Tree, Tree]:
            graph, params, state = nnx.split(module, nnx.Param, ...)
            # Plain arrays from here on: differentiating through nnx's variables loses updates.
            return graph, *(nnx.to_pure_dict(nnx.as_pure(part)) for part in (params, state))

        graph, *_ = split(nnx.eval_shape(lambda: model(jax.random.key(0))))

        def init(key: Array) -> tuple[Tree, Tree]:
            return split(model(key))[1:]

        def apply(
            params: Tree, model_state: Tree, x: Array, key: Array | None, train: bool
        ) -> tuple[Array, Tree]:
            module = nnx.merge(graph, params, model_state)
            module.train() if train else module.eval()
            outputs = module(x)
            return outputs, split(module)[2]

        return Functions(
            init,
            apply,
            loss=lambda outputs, targets: jnp.mean(loss(outputs, targets)),
            metrics={metric: METRICS[metric](decide)},
        )

    def optimizer(self, numbers: Mapping[str, Any]) -> optax.GradientTransformation:
        """The one chain of a step."""
        clip = self.experiment.bind("clipping", numbers)
        terms: Regularization = self.experiment.bind("regularization", numbers)()
        return chain(
            self.experiment.bind("optimizer", numbers)(),
            self.experiment.bind("schedule", numbers),
            self.steps,
            self.steps_per_epoch,
            *gradient_terms(terms),
            *([] if clip is None else [clip()]),
        )


def from_experiment(experiment: Experiment) -> tuple[Task, Setup]:
    """The task of an experiment file, and the setup that its programs are built from.

    Raises:
        UserError: for data that cannot be loaded, or do not fit the loss.
    """
    dataset: Dataset = experiment.bind("data", {})()
    encode = TARGETS[experiment.loss.name].encode
    splits = {}
    outputs = 0
    for name, (x, y) in dataset.splits.items():
        targets, outputs = encode(y, len(dataset.classes))
        splits[name] = Split(x, targets)
    rows = len(dataset.train.x)
    steps_per_epoch = -(-rows // experiment.batch_size)
    setup = Setup(
        structure=experiment.structure,
        inputs=dataset.train.x.shape[1:],
        outputs=outputs,
        classes=len(dataset.classes),
        steps=steps_per_epoch * experiment.epochs,
        steps_per_epoch=steps_per_epoch,
        experiment=experiment,
    )
    return Task(setup.functions(experiment.numbers), **splits, dataset=dataset), setup
