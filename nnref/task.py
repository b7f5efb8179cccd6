"""Task: what is learned. Behind it an experiment file and a user's own functions are the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nnref.data import Dataset, Split, Stored
from nnref.errors import UserError
from nnref.experiment import Experiment, bound
from nnref.losses import LOSSES, TARGETS, takes_smoothing
from nnref.metrics import METRICS, METRICS_OF, Metric
from nnref.models.layers import lsuv_pass
from nnref.optimizers import chain
from nnref.probes import Layer, calls_told
from nnref.regularizers import (
    Regularization,
    augment,
    gradient_terms,
    max_norm,
    weight_average,
)
from nnref.schedules import Progress, plateau
from nnref.signatures import loss_of, module, plain

Array = jax.Array
Tree = Any


class Functions(NamedTuple):
    """The functions of a task, all pure, all traced into the program.

    `init(key)` gives `(params, model_state)`; `apply(params, model_state, x, key, train)` gives
    `(outputs, model_state)`; `loss(outputs, targets)` a scalar, the mean over the batch.
    `training_loss` is what is descended where that is another one (label smoothing); `adapt(params,
    model_state, x)` fits the first parameters to a batch (LSUV); `restart(params, model_state)`
    gives the state before the first row of a split, where a model goes on from batch to batch;
    `layers(params, model_state, x)` tells what each layer gives, in evaluation mode.
    """

    init: Callable[[Array], tuple[Tree, Tree]]
    apply: Callable[[Tree, Tree, Array, Array | None, bool], tuple[Array, Tree]]
    loss: Callable[[Array, Array], Array]
    metrics: Mapping[str, Metric] = {}
    training_loss: Callable[[Array, Array], Array] | None = None
    adapt: Callable[[Tree, Tree, Array], tuple[Tree, Tree]] | None = None
    restart: Callable[[Tree, Tree], Tree] | None = None
    random: bool = True  # whether `apply` draws random numbers at all
    modes: bool = True  # whether it knows training from evaluation
    layers: Callable[[Tree, Tree, Array], Mapping[str, Layer]] | None = None


@dataclass(frozen=True, init=False)
class Task:
    """Functions and arrays. `train`, `valid` and `test` are `(x, y)`, rows first.

    With `stored`, `train` holds only some of the training rows: all of them come from there.
    """

    functions: Functions
    train: Split
    valid: Split | None = None
    test: Split | None = None
    stored: Stored | None = None

    def __init__(
        self,
        functions: Functions | None = None,
        train: Any = None,
        valid: Any = None,
        test: Any = None,
        stored: Stored | None = None,
        *,
        init: Callable[..., Any] | None = None,
        apply: Callable[..., Any] | None = None,
        model: Any = None,
        loss: Callable[..., Any] | None = None,
    ) -> None:
        """A task of a user's own: `Task(init=..., apply=..., loss=..., train=(x, y))`.

        Args:
            functions: all of them in their final form, instead of the last four.
            train: training rows `(x, y)`.
            valid: rows to validate on.
            test: rows to test on.
            stored: where the training rows come from, if they are not all in `train`.
            init: `init(key)` or `init(key, x)`, giving parameters, or parameters and state.
            apply: `apply(params, x)`; it may take a state, a key and a training flag as well.
            model: instead of init and apply: a Flax module of NNX or Linen, or a function of rngs
                that builds one of NNX.
            loss: `loss(outputs, y)`, a scalar or one number a row.

        Raises:
            UserError: for what is missing, or functions that nnref cannot call.
        """
        splits = {
            name: split_of(name, part)
            for name, part in (("train", train), ("valid", valid), ("test", test))
        }
        if splits["train"] is None:
            raise UserError("Task: train is missing; give train=(x, y), arrays with rows first")
        if functions is None:
            functions = functions_from(init, apply, model, loss, splits["train"].x)
        for name, value in (("functions", functions), ("stored", stored), *splits.items()):
            object.__setattr__(self, name, value)

    @property
    def arrays(self) -> dict[str, tuple[Any, Any]]:
        """What training needs of it: the arrays of `train`, and of `valid` where there is one."""
        parts = {"train": self.train, "valid": self.valid}
        return {name: tuple(split) for name, split in parts.items() if split is not None}


def split_of(name: str, given: Any) -> Split | None:
    """Rows as given, as a split of arrays.

    Raises:
        UserError: for anything but a pair of arrays with as many rows.
    """
    if given is None or isinstance(given, Split):
        return given
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise UserError(f"Task: {name} must be a pair (x, y), not {type(given).__name__}")
    x, y = (part if hasattr(part, "shape") else np.asarray(part) for part in given)
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise UserError(
            f"Task: {name} has x of shape {x.shape} and y of {y.shape}; rows come first"
        )
    return Split(x, y)


def functions_from(
    init: Callable[..., Any] | None,
    apply: Callable[..., Any] | None,
    model: Any,
    loss: Callable[..., Any] | None,
    x: Any,
) -> Functions:
    """The functions of a user's task.

    Raises:
        UserError: for what is missing.
    """
    if loss is None:
        raise UserError("Task: loss is missing; give loss=loss, called as loss(outputs, y)")
    if model is not None and (init is not None or apply is not None):
        raise UserError("Task: give model, or init and apply, not both")
    if model is not None:
        network = module(model, x)
    elif init is None or apply is None:
        missing = (
            "init, called as init(key)" if init is None else "apply, called as apply(params, x)"
        )
        raise UserError(f"Task: {missing}, is missing (or give model, a Flax module)")
    else:
        network = plain(init, apply, x)
    return Functions(
        network.init,
        network.apply,
        loss_of(loss),
        random=network.random,
        modes=network.modes,
    )


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
        """Model, losses and metrics."""
        regularization: Regularization = self.experiment.bind("regularization", numbers)()
        build = self.experiment.bind("model", numbers)
        loss = self.experiment.bind("loss", numbers)

        def model(key: Array) -> nnx.Module:
            streams, draws = nnx.Rngs(dropout=key), count()
            # As nnx's own stream, whose counter is an array: counting in Python traces much faster.
            streams.params = lambda: jax.random.fold_in(key, next(draws))  # type: ignore
            return build(self.inputs, self.outputs, streams, regularization)

        def split(module: nnx.Module) -> tuple[Any, Tree, Tree]:
            graph, params, state = nnx.split(module, nnx.Param, ...)
            # Plain arrays from here on: differentiating through nnx's variables loses updates.
            params, state = (nnx.to_pure_dict(nnx.as_pure(part)) for part in (params, state))
            return graph, params, state

        graphs: list[Any] = []  # of the modules, once one has been built

        def init(key: Array) -> tuple[Tree, Tree]:
            graph, params, state = split(model(key))
            graphs[:] = [graph]
            return params, state

        def merge(params: Tree, model_state: Tree) -> Any:
            if not graphs:
                jax.eval_shape(lambda: init(jax.random.key(0)))  # shapes, without a weight
            return nnx.merge(graphs[0], params, model_state)

        def adapt(params: Tree, model_state: Tree, x: Array) -> tuple[Tree, Tree]:
            module = merge(params, model_state)
            lsuv_pass(module, x)
            return split(module)[1:]

        def restart(params: Tree, model_state: Tree) -> Tree:
            module = merge(params, model_state)
            module.restart()
            return split(module)[2]

        def layers(params: Tree, model_state: Tree, x: Array) -> dict[str, Layer]:
            module, calls = merge(params, model_state), {}
            module.eval()
            with calls_told(module, calls):
                module(x)
            return calls

        def apply(
            params: Tree, model_state: Tree, x: Array, key: Array | None, train: bool
        ) -> tuple[Array, Tree]:
            module = merge(params, model_state)
            if train:
                assert key is not None, "training draws random numbers"
                module.train()
                nnx.reseed(module, dropout=jax.random.fold_in(key, 1))
                x = augment(regularization, x, jax.random.fold_in(key, 2))
            else:
                module.eval()
            outputs = module(x)
            return outputs, split(module)[2]

        def mean_loss(outputs: Array, targets: Array) -> Array:
            return jnp.mean(loss(outputs, targets))

        def smoothed_loss(outputs: Array, targets: Array) -> Array:
            return jnp.mean(loss(outputs, targets, regularization.label_smoothing))

        return Functions(
            init,
            apply,
            mean_loss,
            self.metrics(),
            training_loss=None if regularization.label_smoothing is None else smoothed_loss,
            adapt=adapt,
            restart=None if getattr(self.experiment.model, "streams", None) is None else restart,
            layers=layers,
        )

    def metrics(self) -> dict[str, Metric]:
        """The metrics of the file, or those that suit the targets."""
        target = TARGETS[self.experiment.loss.name]
        chosen = self.experiment.metrics
        if chosen is None:
            names = METRICS_OF["classes" if self.classes else "values"]
            members = {name: METRICS[name] for name in names}
        else:
            members = {part.name: bound(part, "metrics", {}) for part in chosen}
        answer = target.decide if self.classes else target.predict
        return {
            name: member(answer, self.classes, target.log_probabilities)
            for name, member in members.items()
        }

    def optimizer(self, numbers: Mapping[str, Any]) -> optax.GradientTransformation:
        """The one chain of a step."""
        clips = self.experiment.clipping is not None
        terms: Regularization = self.experiment.bind("regularization", numbers)()
        return chain(
            self.experiment.bind("optimizer", numbers)(),
            self.experiment.bind("schedule", numbers),
            self.steps,
            self.steps_per_epoch,
            *gradient_terms(terms),
            *([self.experiment.bind("clipping", numbers)()] if clips else []),
            weight_decay=terms.weight_decay,
            decay_everything=terms.decay_everything,
            projection=None if terms.max_norm is None else max_norm(terms.max_norm),
            averaging=None if terms.average is None else weight_average(terms.average),
        )


def from_experiment(experiment: Experiment) -> tuple[Task, Setup, Dataset]:
    """The task of an experiment file, the setup that its programs are built from, and its data.

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
    steps_per_epoch = -(-dataset.rows // experiment.batch_size)
    setup = Setup(
        structure=experiment.structure,
        inputs=dataset.train.x.shape[1:],
        outputs=outputs,
        classes=len(dataset.classes),
        steps=steps_per_epoch * experiment.epochs,
        steps_per_epoch=steps_per_epoch,
        experiment=experiment,
    )
    refuse_together(experiment, dataset)
    functions = functions_of(setup, tuple(experiment.numbers.items()))
    stored = dataset.stored

    def read(rows: np.ndarray) -> Split:
        assert stored is not None, "only what is stored is read"
        x, y = stored.read(rows)
        return Split(x, encode(y, len(dataset.classes))[0])

    encoded = None if stored is None else stored._replace(read=read)
    return Task(functions, **splits, stored=encoded), setup, dataset


@lru_cache(maxsize=64)
def functions_of(setup: Setup, numbers: tuple[tuple[str, float], ...]) -> Functions:
    """The functions of a setup with these numbers; building the graph of modules takes a while.

    What contradicts itself inside the chain of a step is refused here, not when it is compiled.
    """
    setup.optimizer(dict(numbers))
    schedule = setup.experiment.bind("schedule", dict(numbers))
    schedule(Progress(jnp.int32(0), setup.steps, setup.steps_per_epoch, jnp.int32(0)))
    functions = setup.functions(dict(numbers))
    jax.eval_shape(lambda: functions.init(jax.random.key(0)))
    return functions


def refuse_together(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse parts that are right alone and mean nothing together.

    Raises:
        UserError: for label smoothing under a loss without it, a schedule that watches the
            validation loss where nothing is validated, or streams that do not go on.
    """
    if experiment.regularization.label_smoothing is not None and not takes_smoothing(
        LOSSES[experiment.loss.name]
    ):
        able = [name for name, loss in LOSSES.items() if takes_smoothing(loss)]
        raise UserError(
            f"regularization.label_smoothing: {experiment.loss.name} has no classes to smooth; "
            f"leave it out, or use {' or '.join(able)}"
        )
    if plateau(experiment.bind("schedule", {})) is not None and dataset.valid is None:
        raise UserError(
            "schedule: reduce_on_plateau watches the validation loss, and these data have no "
            "validation split; give data.valid a share, or take another schedule"
        )
    refuse_streams(experiment, dataset)


def refuse_streams(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse a state that is carried along rows which do not go on from one another.

    Raises:
        UserError: where data, model and batches have not the same streams, where rows are
            shuffled on the way, or where a model of text reads what it is to tell.
    """
    carried = getattr(experiment.model, "streams", None)
    given = carried if dataset.unit is None else dataset.streams
    if carried is None and given is None:
        pass
    elif not carried == given == experiment.batch_size:
        raise UserError(
            f"streams: the data have {given or 'none'}, model.streams is {carried or 'none'} and "
            f"batch_size {experiment.batch_size}; where a state is carried from batch to batch "
            "the three are the same number"
        )
    elif experiment.shuffle:
        raise UserError(
            "shuffle: a state is carried from batch to batch, so that rows must come in their "
            "order; set it to false, or leave streams out"
        )
    if dataset.unit is not None and getattr(experiment.model, "bidirectional", False):
        raise UserError(
            "model.bidirectional: read from its end, a text has told each next character already"
        )
