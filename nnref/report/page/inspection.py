"""Inspection of a trained network: its weights, its activations, its answers."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from nnref.data import Dataset
from nnref.data.text import read, spell, tokens_of
from nnref.errors import UserError
from nnref.parts.metrics import confusion_matrix, labels_of
from nnref.parts.target_kinds import target_kind
from nnref.studies.run import Trained, plan_of
from nnref.studies.sampling import sample
from nnref.training import loop, train
from nnref.training.probes import owner
from nnref.training.setup import bind

ROWS = 10_000  # rows of a split that the network answers, at most
EXAMPLES = 256  # examples whose activations are looked at
NUMBERS = 50_000  # numbers of an array that a histogram counts, at most
MISTAKES = 12  # examples that are shown
WORDS = 10  # classes that are shown of an answer with one for each step
IMAGE = 8  # pixels of the shorter side from which a matrix counts as an image
TEMPERATURE = 0.8


class LayerNumbers(NamedTuple):
    """Weights of a layer before and after training, each (n,); empty where it has none."""

    name: str
    weights: tuple[np.ndarray, np.ndarray]
    activations: tuple[np.ndarray, np.ndarray]


class Answers(NamedTuple):
    """The outputs of a network for the first rows of a split."""

    split: str
    rows: int  # of the whole split
    x: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    losses: np.ndarray  # (rows,)


class WrongAnswer(NamedTuple):
    """An example that is answered wrongly, or nearly so."""

    row: int
    label: str
    answer: str
    probability: float | None  # of the answer, where the loss has any
    x: np.ndarray


# --- weights and activations --------------------------------------------------------------------


def layers_of(trained: Trained) -> list[LayerNumbers]:
    """The layers in the order in which an example meets them, at the start and in the end."""
    seeds = np.array([trained.page.seed], np.uint32)
    task, experiment = trained.task, trained.experiment
    plan = plan_of(experiment)
    start: Any = partial(loop.start_runs, trained.setup, plan, experiment.hyperparameters)
    states, _ = start(seeds, task.arrays)
    first = jax.tree.map(lambda leaf: leaf[0], (states.params, states.model_state))
    networks = (first, (trained.params, trained.model_state))
    x = examples(trained)
    outputs = [activations(trained, params, state, x) for params, state in networks]
    weights = [kernels(params, outputs[0]) for params, _ in networks]
    names = [*(name for name in weights[0] if name not in outputs[0]), *outputs[0]]
    nothing = np.zeros(0, np.float32)

    def both(of: list[dict[str, np.ndarray]], name: str) -> tuple[np.ndarray, np.ndarray]:
        return of[0].get(name, nothing), of[1].get(name, nothing)

    return [LayerNumbers(name, both(weights, name), both(outputs, name)) for name in names]


def examples(trained: Trained) -> np.ndarray:
    """Training inputs spread over the split; the first batch where a state goes from row to row."""
    x = trained.task.train.x
    if trained.task.functions.restart is not None:
        return x[: trained.experiment.batch_size]
    apart = max(1, len(x) // EXAMPLES)
    return x[: apart * EXAMPLES : apart]


def activations(
    trained: Trained, params: Any, model_state: Any, x: np.ndarray
) -> dict[str, np.ndarray]:
    """The outputs of each layer that the model calls, flat, by the path of the layer.

    A model of a user's own does not tell its layers.
    """
    functions, names = trained.task.functions, []
    if functions.layers is None:
        return {}
    layers = functions.layers
    model_state = train.restart(functions, params, model_state)

    def forward(params: Any, model_state: Any, x: jax.Array) -> dict[str, Any]:
        calls = layers(params, model_state, x)
        names.extend(calls)
        return {name: layer.outputs for name, layer in calls.items()}

    outputs = jax.jit(forward)(params, model_state, x)
    # A layer may give its outputs at every step and their last one, too: the larger has both.
    largest = {name: max(jax.tree.leaves(g), key=np.size) for name, g in outputs.items()}
    order = {name: largest[name] for name in names}  # jit sorts keys
    return {name: some(np.asarray(values)) for name, values in order.items()}


def kernels(params: Any, layers: Any) -> dict[str, np.ndarray]:
    """All numbers of each layer's kernels, flat; one outside of every layer by its own path."""
    leaves: dict[str, list[np.ndarray]] = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        if leaf.ndim >= 2:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            layer = owner(name, layers) or name
            leaves.setdefault(layer, []).append(np.asarray(leaf).ravel())
    return {name: some(np.concatenate(parts)) for name, parts in leaves.items()}


def some(values: np.ndarray) -> np.ndarray:
    """At most NUMBERS of the values, from all over the array."""
    flat = values.ravel()
    return flat[:: -(-flat.size // NUMBERS) or 1]


# --- answers ------------------------------------------------------------------------------------


def answers_of(trained: Trained) -> Answers:
    """The outputs for validation rows, or for training rows where none are held out."""
    task, functions = trained.task, trained.task.functions
    name = "train" if task.valid is None else "valid"
    x, y = task.train if task.valid is None else task.valid
    size = train.evaluation_batch(functions, plan_of(trained.experiment))
    state = train.restart(functions, trained.params, trained.model_state)
    experiment = trained.experiment
    loss = bind(experiment, "loss", experiment.hyperparameters)

    @jax.jit
    def answer(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        outputs, state = functions.apply(trained.params, state, x, None, False)
        return state, outputs, loss(outputs, y)

    batches = []
    for first in range(0, min(len(x), ROWS), size):
        rows = slice(first, min(first + size, len(x)))
        state, outputs, losses = answer(state, x[rows], y[rows])
        batches.append((np.asarray(outputs), np.asarray(losses)))
    outputs, losses = (np.concatenate(part) for part in zip(*batches, strict=True))
    shown = len(outputs)
    return Answers(name, len(x), x[:shown], y[:shown], outputs, losses)


def confusion(trained: Trained, answers: Answers) -> np.ndarray:
    """How often class i was answered with class j, (classes, classes)."""
    decide = target_kind(trained.experiment.loss.name).decide
    metric = confusion_matrix(decide, len(trained.dataset.classes))
    outputs, targets = jax.numpy.asarray(answers.outputs), jax.numpy.asarray(answers.targets)
    return np.asarray(metric.value(metric.count(outputs, targets)))


def worst_mistakes(trained: Trained, answers: Answers) -> tuple[int, list[WrongAnswer]]:
    """How many examples are answered wrongly, and those of them with the largest loss first.

    Where none is wrong, the examples with the largest loss of all.
    """
    kind, classes = target_kind(trained.experiment.loss.name), trained.dataset.classes
    decided = np.asarray(kind.decide(jax.numpy.asarray(answers.outputs)))
    labels = np.asarray(labels_of(jax.numpy.asarray(answers.targets), decided))  # pyright: ignore
    wrong = (decided != labels).reshape(len(decided), -1).any(axis=1)
    rows = np.flatnonzero(wrong) if wrong.any() else np.arange(len(wrong))
    worst = rows[np.argsort(-np.nan_to_num(answers.losses[rows], nan=np.inf), kind="stable")]
    probabilities = None
    if kind.log_probabilities is not None:
        probabilities = np.exp(kind.log_probabilities(jax.numpy.asarray(answers.outputs)))

    def named(row: np.ndarray) -> str:
        words = [classes[int(k)] for k in np.ravel(row)]
        return " ".join(words[:WORDS]) + (" …" if len(words) > WORDS else "")

    def sure(row: int) -> float | None:
        if probabilities is None or decided[row].ndim:
            return None
        return float(probabilities[row, int(decided[row])])

    return int(wrong.sum()), [
        WrongAnswer(int(row), named(labels[row]), named(decided[row]), sure(row), answers.x[row])
        for row in worst[:MISTAKES]
    ]


def predictions(trained: Trained, answers: Answers) -> np.ndarray | None:
    """The values that outputs stand for, of the targets' shape; None where they are no values."""
    kind = target_kind(trained.experiment.loss.name)
    values = np.asarray(kind.predict(jax.numpy.asarray(answers.outputs)))
    if values.shape != answers.targets.shape or trained.experiment.loss.name == "linear":
        return None  # a linear loss has costs for targets
    return values


def in_unit(trained: Trained, values: np.ndarray) -> np.ndarray:
    """Values in the unit that the targets had before they were scaled, (rows, ...)."""
    if trained.dataset.target_scaling is None:
        return values
    mean, deviation = trained.dataset.target_scaling
    return values * deviation + mean


def as_images(trained: Trained, mistakes: Sequence[WrongAnswer]) -> list[np.ndarray] | None:
    """Examples as images, (rows, columns) or (rows, columns, 3) of 0 to 255; None for others.

    Pixels are shown as they were before they were standardized, where that can be undone.
    """
    dataset = trained.dataset
    if any(image_of(trained, dataset, mistake.x) is None for mistake in mistakes):
        return None
    if getattr(trained.experiment.data, "standardized", False):
        plain = trained.experiment.replaced({"data.standardized": False})
        try:
            dataset = bind(plain, "data", {})()
        except UserError:  # raw pixels that no network should be given
            pass
    split = dataset.train if dataset.valid is None else dataset.valid
    images = [image_of(trained, dataset, split.x[mistake.row]) for mistake in mistakes]
    low, high = min(np.min(i) for i in images), max(np.max(i) for i in images)  # type: ignore
    return [np.uint8(255 * (i - low) / ((high - low) or 1)) for i in images]  # type: ignore


def image_of(trained: Trained, dataset: Dataset, x: np.ndarray) -> np.ndarray | None:
    """An example as an image, without an axis of one channel; None where it is none."""
    if x.ndim == 3 and x.shape[-1] in (1, 3):
        return x[..., 0] if x.shape[-1] == 1 else x
    if x.ndim == 2 and min(x.shape) >= IMAGE and trained.experiment.model.name != "recurrent":
        return x
    side = round(x.size**0.5)
    named = [f"row {row} column {column}" for row in range(side) for column in range(side)]
    return x.reshape(side, side) if x.ndim == 1 and list(dataset.columns) == named else None


# --- language -----------------------------------------------------------------------------------


def samples_of(trained: Trained, length: int = 300) -> tuple[str, list[str]]:
    """The beginning of held-out text, and what the network writes behind it, of this length."""
    dataset = trained.dataset
    name = "train" if dataset.valid is None else "valid"
    prompt = spell(dataset, tokens_of(dataset, name)[:40])
    if not len(read(dataset, prompt)):
        raise UserError("the text begins with nothing that can be read")
    tokens = sample(trained, length=length, temperature=TEMPERATURE, prompt=prompt, samples=2)
    return prompt, [spell(dataset, text) for text in tokens]
