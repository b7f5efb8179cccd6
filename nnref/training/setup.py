"""Setup: functions and optimizer of an experiment, built from traced hyperparameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nnref.data import Dataset, Split
from nnref.data.own import dataset_of
from nnref.data.trees import Layout
from nnref.errors import UserError
from nnref.experiment.compatibility import refuse_contradictions
from nnref.experiment.experiment import Experiment
from nnref.experiment.schema import Member, Reference
from nnref.internals import counted_rngs, parameters_of
from nnref.parts import regularizers
from nnref.parts.chain import chain
from nnref.parts.metrics import METRICS, METRICS_OF, Metric, labels_of
from nnref.parts.optimizers import Optimizer
from nnref.parts.regularizers import Regularization
from nnref.parts.target_kinds import target_kind
from nnref.training.adapters.losses import loss_of, of_params
from nnref.training.adapters.models import network_of
from nnref.training.embedded import Embedding, embedded
from nnref.training.split_module import SplitModule
from nnref.training.task import Array, Functions, Task, Tree, functions_of_network, in_bf16


def bind(
    experiment: Experiment, kind: str, hyperparameters: Mapping[str, Any]
) -> Callable[..., Any]:
    """The function of a part with all its arguments, floats taken from `hyperparameters`."""
    return bound(getattr(experiment, kind), kind, hyperparameters)


def bound(part: Member, path: str, hyperparameters: Mapping[str, Any]) -> Callable[..., Any]:
    """The function of a part, bound to its arguments, or to hyperparameters in their place."""
    arguments = {}
    for name in arguments_of(part):
        value, where = getattr(part, name), f"{path}.{name}"
        if isinstance(value, Member):
            value = bound(value, where, hyperparameters)
        arguments[name] = hyperparameters.get(where, value)
    return partial(type(part).function, **arguments)


def as_rule(optimizer: optax.GradientTransformation) -> Optimizer:
    """A whole optimizer of optax, which has its own rate, as the direction of a chain at rate 1."""

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        updates, state = optimizer.update(updates, state, params)
        return jax.tree.map(jnp.negative, updates), state

    return Optimizer(1.0, optax.GradientTransformation(optimizer.init, update))


def arguments_of(part: Member) -> list[str]:
    """The keys of a part that are arguments of its function."""
    return [name for name in type(part).model_fields if name not in ("name", "digest")]


@dataclass(frozen=True)
class Setup:
    """What a program is built from: called with hyperparameters, it gives functions and optimizer.

    Two setups of the same structure are equal, so that JAX compiles once for both: the
    hyperparameters come as arguments of the program.
    """

    structure: str
    inputs: tuple[int, ...]
    outputs: int
    classes: int
    steps: int
    steps_per_epoch: int
    experiment: Experiment = field(compare=False, repr=False)
    example: Any = field(compare=False, repr=False, default=None)  # two rows of inputs
    rows: Layout | None = None  # how inputs that are several arrays lie in one
    targets: Layout | None = None
    target_scaling: tuple[tuple[float, ...], ...] | None = None  # see `Dataset`
    weights: tuple[float, ...] | None = None  # of the classes in the training loss
    embedding: Embedding | None = None  # of the columns of categories

    @property
    def seen(self) -> tuple[int, ...]:
        """The shape of an example as the network sees it, with vectors for categories."""
        one = self.embedding
        return self.inputs if one is None else (one.widened(self.inputs[0]),)

    def __call__(
        self, hyperparameters: Mapping[str, Any]
    ) -> tuple[Functions, optax.GradientTransformation]:
        """Functions and optimizer with these hyperparameters, which may be traced."""
        return self.functions(hyperparameters), self.optimizer(hyperparameters)

    def functions(self, hyperparameters: Mapping[str, Any]) -> Functions:
        """Model, losses and metrics."""
        if isinstance(self.experiment.model, Reference):
            functions = self.functions_of_reference(hyperparameters)
        else:
            functions = self.functions_of_member(hyperparameters)
        if self.experiment.precision == "bf16":  # inside: numbers of categories need all digits
            functions = in_bf16(functions)
        return functions if self.embedding is None else embedded(functions, self.embedding)

    def functions_of_member(self, hyperparameters: Mapping[str, Any]) -> Functions:
        """Model, losses and metrics, where the model is one of nnref's own."""
        regularization: Regularization = bind(self.experiment, "regularization", hyperparameters)()
        build = bind(self.experiment, "model", hyperparameters)
        loss = bind(self.experiment, "loss", hyperparameters)
        own_loss = isinstance(self.experiment.loss, Reference)
        smoothing = regularization.label_smoothing

        def new_model(key: Array) -> nnx.Module:
            return build(self.seen, self.outputs, counted_rngs(key), regularization)

        def apply(
            params: Tree, model_state: Tree, x: Array, key: Array | None, train: bool
        ) -> tuple[Array, Tree]:
            if not train:
                return model.apply(params, model_state, x, False)
            assert key is not None, "training draws random numbers"
            dropout, augmentation = (jax.random.fold_in(key, number) for number in (1, 2))
            x = regularizers.augment(regularization, x, augmentation)
            return model.apply(params, model_state, x, True, dropout=dropout)

        def mean_loss(outputs: Array, targets: Array) -> Array:
            return jnp.mean(loss(outputs, targets))

        def smoothed_loss(outputs: Array, targets: Array) -> Array:
            return jnp.mean(loss(outputs, targets, smoothing))

        training_loss = None if smoothing is None else smoothed_loss
        if self.weights is not None and own_loss:
            raise UserError(
                f"data.balance: {self.experiment.loss.name} is your own, and gives one number for "
                "all rows; weigh the classes in it, or leave balance out"
            )
        if self.weights is not None:
            training_loss = weighted(loss, self.weights, smoothing)
        model = SplitModule(new_model)
        goes_on = getattr(self.experiment.model, "streams", None) is not None
        return Functions(
            model.init,
            apply,
            loss_of(loss) if own_loss else mean_loss,
            self.metrics(),
            training_loss=training_loss,
            adapt=model.adapt,
            restart=model.restart if goes_on else None,
            layers=model.layers,
        )

    def functions_of_reference(self, hyperparameters: Mapping[str, Any]) -> Functions:
        """Model, losses and metrics, where the model is a user's own."""
        x: Any = self.example
        rows, targets = self.rows, self.targets
        if self.embedding is not None:
            x, rows = np.zeros((len(x), *self.seen), np.float32), None
        network = network_of(self.own_model(), x if rows is None else rows.unpack(x))
        loss = bind(self.experiment, "loss", hyperparameters)
        if isinstance(self.experiment.loss, Reference) and of_params(loss):
            raise UserError(
                f"loss: {self.experiment.loss.name} calls the network itself; an experiment takes "
                "loss(outputs, y)"
            )
        functions = functions_of_network(network, loss, rows, targets)
        params, state = jax.eval_shape(functions.init, jax.random.key(0))

        def evaluated(params: Tree, state: Tree) -> Any:
            return functions.apply(params, state, x, None, False)[0]

        outputs = jax.eval_shape(evaluated, params, state)
        alone = targets is None and len(jax.tree.leaves(outputs)) == 1
        return functions._replace(metrics=self.metrics() if alone else {})

    def own_model(self) -> Any:
        """The model of a user, or what builds it, with the arguments of the file."""
        part = self.experiment.model
        target = type(part).function
        settings = {name: getattr(part, name) for name in arguments_of(part)}
        sizes = {"inputs": self.seen, "outputs": self.outputs}
        if callable(target):
            asked = {one.name for one in parameters_of(target) or []}
            settings |= {name: size for name, size in sizes.items() if name in asked}
        return partial(target, **settings) if settings else target

    def metrics(self) -> dict[str, Metric]:
        """The metrics of the file, or those that suit the targets."""
        target = target_kind(self.experiment.loss.name)
        chosen = self.experiment.metrics
        if chosen is None:
            names = METRICS_OF["classes" if self.classes else "values"]
            members = {name: METRICS[name] for name in names}
        else:
            members = {part.name: bound(part, "metrics", {}) for part in chosen}
        answer = target.decide if self.classes else target.predict
        made = {
            name: member(answer, self.classes, target.log_probabilities)
            for name, member in members.items()
        }
        if self.target_scaling is None:
            return made
        mean, deviation = (np.array(part, np.float32) for part in self.target_scaling)
        return {name: in_unit(metric, mean, deviation) for name, metric in made.items()}

    def optimizer(self, hyperparameters: Mapping[str, Any]) -> optax.GradientTransformation:
        """The one chain of a step; a UserError for parts that contradict each other."""
        terms: Regularization = bind(self.experiment, "regularization", hyperparameters)()
        before = regularizers.gradient_terms(terms)
        if self.experiment.clipping is not None:
            before = [*before, bind(self.experiment, "clipping", hyperparameters)()]
        radius, decay = terms.max_norm, terms.average
        optimizer = bind(self.experiment, "optimizer", hyperparameters)()
        return chain(
            optimizer if isinstance(optimizer, Optimizer) else as_rule(optimizer),
            bind(self.experiment, "schedule", hyperparameters),
            self.steps,
            self.steps_per_epoch,
            *before,
            weight_decay=terms.weight_decay,
            decay_everything=terms.decay_everything,
            projection=None if radius is None else regularizers.max_norm(radius),
            averaging=None if decay is None else regularizers.weight_average(decay),
        )


def in_unit(metric: Metric, mean: np.ndarray, deviation: np.ndarray) -> Metric:
    """A metric of outputs and targets in the unit that they had before they were scaled."""

    def count(outputs: Array, targets: Array) -> Any:
        return metric.count(outputs * deviation + mean, targets * deviation + mean)

    return metric._replace(count=count)


def as_tuples(arrays: tuple[np.ndarray, ...] | None) -> tuple[tuple[float, ...], ...] | None:
    """Arrays as what can be compared and hashed."""
    return None if arrays is None else tuple(tuple(array.tolist()) for array in arrays)


def weighted(
    loss: Callable[..., Array], weights: tuple[float, ...], smoothing: Any
) -> Callable[[Array, Array], Array]:
    """The mean loss of rows, each weighed by its class: an integer, a 0 or 1, or a one-hot row."""
    of_class = np.array(weights, np.float32)

    def mean_loss(outputs: Array, targets: Array) -> Array:
        of_rows = loss(outputs, targets) if smoothing is None else loss(outputs, targets, smoothing)
        classes = labels_of(targets, jnp.zeros(outputs.shape[:-1], jnp.int32))
        return jnp.mean(of_rows * jnp.asarray(of_class)[classes])

    return mean_loss


# --- from an experiment to a task -----------------------------------------------------------------


def data_of(experiment: Experiment) -> Dataset:
    """The data of an experiment file.

    Raises:
        UserError: for data that cannot be loaded.
    """
    load = bind(experiment, "data", {})
    # What a column is may depend on the loss: 1 to 5 are classes, or ratings.
    return dataset_of(load(experiment.loss.name) if experiment.data.name == "file" else load())


def from_experiment(
    experiment: Experiment, dataset: Dataset | None = None
) -> tuple[Task, Setup, Dataset]:
    """The task of an experiment file, the setup that its programs are built from, and its data.

    The data are loaded where none are given.

    Raises:
        UserError: for data that cannot be loaded, and parts that do not go together.
    """
    dataset = data_of(experiment) if dataset is None else dataset
    setup, splits = setup_of(experiment, dataset)
    refuse_contradictions(experiment, dataset)
    functions = functions_of(setup, tuple(experiment.hyperparameters.items()))
    stored, encode = dataset.stored, target_kind(experiment.loss.name).encode

    def read(rows: np.ndarray) -> Split:
        assert stored is not None, "only what is stored is read"
        x, y = stored.read(rows)
        return Split(x, encode(y, setup.classes)[0])

    encoded = None if stored is None else stored._replace(read=read)
    task = Task(functions, **splits, stored=encoded)
    task.inputs, task.targets = dataset.inputs, dataset.targets
    return task, setup, dataset


def setup_of(experiment: Experiment, dataset: Dataset) -> tuple[Setup, dict[str, Any]]:
    """The setup of an experiment on some data, and their splits with targets as the loss has them.

    Raises:
        UserError: for targets that the loss cannot mean.
    """
    classes, encode = len(dataset.classes), target_kind(experiment.loss.name).encode
    splits: dict[str, Any] = {}
    outputs = 0
    for name, (x, y) in dataset.splits.items():
        targets, outputs = encode(y, classes)
        splits[name] = Split(x, targets)
    steps_per_epoch = -(-dataset.rows // experiment.batch_size)
    setup = Setup(
        structure=experiment.structure,
        inputs=dataset.train.x.shape[1:],
        outputs=outputs,
        classes=classes,
        steps=steps_per_epoch * experiment.epochs,
        steps_per_epoch=steps_per_epoch,
        experiment=experiment,
        example=dataset.train.x[:2],
        rows=dataset.inputs,
        targets=dataset.targets,
        target_scaling=as_tuples(dataset.target_scaling),
        weights=dataset.weights,
        embedding=embedding_of(dataset),
    )
    return setup, splits


def embedding_of(dataset: Dataset) -> Embedding | None:
    """The matrices of the columns of many categories of a table; None where it has none."""
    vectors = {} if dataset.encoder is None else dataset.encoder.vectors
    return Embedding(tuple(vectors), tuple(vectors.values())) if vectors else None


@lru_cache(maxsize=64)
def functions_of(setup: Setup, hyperparameters: tuple[tuple[str, float], ...]) -> Functions:
    """The functions of a setup with these numbers; building the graph of modules takes a while.

    The optimizer is built, too, so that parts that contradict each other are refused before
    anything is written or compiled.
    """
    functions, _ = setup(dict(hyperparameters))
    jax.eval_shape(lambda: functions.init(jax.random.key(0)))
    return functions
