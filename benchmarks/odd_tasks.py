"""Tasks that are odd but that somebody brings: whatever `nnref.diagnose` says, it says it itself.

Each oddity is one row of a table. `drawn(seed)` puts a few of them together, one of each kind.
"""

import json
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import nnref

OWN = f"nnref{os.sep}diagnosis"
ROWS, COLUMNS, CLASSES = 48, 3, 3
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, COLUMNS)).astype(np.float32)
Y = X[:, :1] - 2 * X[:, 1:2]
LABELS = np.argmax(X, 1).astype(np.int32)


def init(key: Any) -> dict[str, Any]:
    """Two layers with one output."""
    first, second = jax.random.split(key)
    kernels = jax.random.normal(first, (COLUMNS, 4)), jax.random.normal(second, (4, 1))
    return {"a": 0.5 * kernels[0], "b": 0.5 * kernels[1]}


def apply(params: Any, x: Any) -> Any:
    """Two layers."""
    return jnp.tanh(x @ params["a"]) @ params["b"]


def squared(outputs: Any, y: Any) -> Any:
    """The squared error of each row."""
    return (outputs - y) ** 2


def classes(key: Any) -> dict[str, Any]:
    """One layer with an output a class."""
    return {"a": 0.5 * jax.random.normal(key, (COLUMNS, CLASSES))}


def logits(params: Any, x: Any) -> Any:
    """One layer."""
    return x @ params["a"]


def without_negative(outputs: Any, y: Any) -> Any:
    """The cross-entropy of the rows that have a label."""
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.maximum(y, 0))
    return jnp.sum(losses * (y >= 0)) / jnp.sum(y >= 0)


def labelled(y: Any, loss: Callable[..., Any] = without_negative) -> dict[str, Any]:
    """A classification with these labels."""
    return {"init": classes, "apply": logits, "loss": loss, "train": (X, y)}


def beside(name: str, leaf: Any) -> dict[str, Any]:
    """Parameters with another leaf, which nothing looks at."""
    return {"init": lambda key: init(key) | {name: leaf}}


def words(rows: Any, size: int) -> dict[str, Any]:
    """An embedding of `size` words, and their sum."""
    return {
        "init": lambda key: {"table": jax.random.normal(key, (size, 1))},
        "apply": lambda params, x: (
            params["table"].at[x].get(mode="fill")[:, :, 0].sum(1, keepdims=True)
        ),
        "train": (rows, Y),
    }


def stepping(state: Any, given: Callable[[Any], Any]) -> Any:
    """An optimizer with this state, and these updates."""
    init: Any = lambda params: state  # noqa: E731
    update: Any = lambda updates, state, params=None: (given(updates), state)  # noqa: E731
    return optax.GradientTransformation(init, update)


KEPT: list[Any] = []


def leaking(params: Any, x: Any) -> Any:
    """Adds what an earlier trace has left behind."""
    KEPT.append(jnp.sum(x))
    return apply(params, x) + KEPT[0]


def still(params: Any, state: Any, x: Any, train: bool) -> Any:
    """Normalizes by statistics of the batch; the running ones stay where they are."""
    mean, variance = (x.mean(0), x.var(0)) if train else (state["mean"], state["variance"])
    return apply(params, (x - mean) / jnp.sqrt(variance + 1e-5)), state


def moving(params: Any, state: Any, x: Any, train: bool) -> Any:
    """The same with statistics that follow the batches."""
    outputs, _ = still(params, state, x, train)
    if not train:
        return outputs, state
    at = {"mean": x.mean(0), "variance": x.var(0)}
    return outputs, jax.tree.map(lambda old, new: 0.5 * old + 0.5 * new, state, at)


def with_statistics(key: Any) -> Any:
    """Parameters and running statistics."""
    return init(key), {"mean": jnp.zeros(COLUMNS), "variance": jnp.ones(COLUMNS)}


def rows_of(x: Any, y: Any = Y) -> dict[str, Any]:
    """Other training rows."""
    return {"train": (x, y)}


def wide(value: float) -> Callable[[Any, Any], Any]:
    """A loss that is one value whatever the outputs."""
    return lambda outputs, y: jnp.full((), value) + 0 * outputs.sum()


# What is odd: changes of `nnref.Task`.
INPUTS: Mapping[str, dict[str, Any]] = {
    "boolean inputs": rows_of(X > 0),
    "whole inputs": rows_of((10 * X).astype(np.int32)),
    "bytes": rows_of((50 * X + 120).astype(np.uint8)),
    "half precision": rows_of(X.astype(np.float16)),
    "brain floats": rows_of(jnp.asarray(X, jnp.bfloat16)),
    "double precision": rows_of(X.astype(np.float64)),
    "complex inputs": rows_of(X.astype(np.complex64)),
    "constant inputs": rows_of(np.ones_like(X)),
    "an input that is not finite": rows_of(np.where(X > 2, np.inf, X)),
    "huge inputs": rows_of(X * 1e30),
    "tiny inputs": rows_of(X * 1e-30),
    "two rows": rows_of(X[:2], Y[:2]),
    "one row twice": rows_of(X[[0, 0]], Y[[0, 0]]),
    "no columns": rows_of(X[:, :0])
    | {"apply": lambda params, x: x @ params["a"][:0] @ params["b"]},
    "rows that are numbers": rows_of(X[:, 0])
    | {"apply": lambda p, x: x[:, None] @ p["a"][:1] @ p["b"]},
    "validation rows of one": {"valid": (X[:1], Y[:1])},
    "a word beyond the table": words(np.arange(2 * ROWS).reshape(ROWS, 2) % 7, 5),
    "a word below the table": words(np.arange(2 * ROWS).reshape(ROWS, 2) % 5 - 9, 5),
}
TARGETS: Mapping[str, dict[str, Any]] = {
    "labels of -1, left out": labelled(np.where(LABELS == 2, -1, LABELS)),
    "labels of -100, left out": labelled(np.where(np.arange(ROWS) % 4 == 0, -100, LABELS)),
    "labels of -1, not left out": labelled(
        np.where(np.arange(ROWS) % 4 == 0, -1, LABELS),
        optax.softmax_cross_entropy_with_integer_labels,
    ),
    "labels from 1": labelled(LABELS + 1, optax.softmax_cross_entropy_with_integer_labels),
    "all labels left out": labelled(np.full(ROWS, -1)),
    "labels as bytes": labelled(LABELS.astype(np.uint8)),
    "labels as fractions": labelled(
        LABELS.astype(np.float32),
        lambda outputs, y: without_negative(outputs, y.astype(jnp.int32)),
    ),
    "one class": labelled(np.zeros(ROWS, np.int32)),
    "boolean targets": rows_of(X, Y > 0),
    "complex targets": rows_of(X, Y.astype(np.complex64)),
    "targets without a second axis": rows_of(X, Y[:, 0]),
    "constant targets": rows_of(X, np.ones_like(Y)),
    "targets that are not finite": rows_of(X, np.where(Y > 2, np.nan, Y)),
    "huge targets": rows_of(X, Y * 1e30),
    "nothing to predict": rows_of(X, Y[:, :0]),
    "targets as bytes": rows_of(X, (Y > 0).astype(np.uint8)),
    "nine axes": rows_of(X, Y.reshape(ROWS, *[1] * 8))
    | {"loss": lambda outputs, y: squared(outputs, y.reshape(-1, 1))},
}
NETWORKS: Mapping[str, dict[str, Any]] = {
    "no parameters": {"init": lambda key: {}, "apply": lambda params, x: x[:, :1]},
    "parameters that are None": {"init": lambda key: None, "apply": lambda params, x: x[:, :1]},
    "whole numbers among the parameters": beside("steps", jnp.array(3)),
    "a key among the parameters": {"init": lambda key: init(key) | {"key": key}},
    "an old key among the parameters": beside("key", jax.random.PRNGKey(0)),
    "a flag among the parameters": beside("flag", jnp.array(True)),
    "an empty leaf": beside("empty", jnp.zeros((0, 3))),
    "nothing among the parameters": beside("none", None),
    "a number of Python among the parameters": beside("number", 0.5),
    "half of the parameters in half precision": {
        "init": lambda key: init(key) | {"b": init(key)["b"].astype(jnp.float16)}
    },
    "complex parameters": {
        "init": lambda key: jax.tree.map(lambda leaf: leaf.astype(jnp.complex64), init(key)),
        "apply": lambda params, x: apply(params, x).real,
    },
    "complex outputs": {
        "init": lambda key: jax.tree.map(lambda leaf: leaf.astype(jnp.complex64), init(key)),
        "loss": lambda outputs, y: jnp.abs(outputs - y) ** 2,
    },
    "a list of parameters": {
        "init": lambda key: list(init(key).values()),
        "apply": lambda params, x: apply(dict(zip("ab", params, strict=True)), x),
    },
    "parameters that are one number": {
        "init": lambda key: jnp.array(0.5),
        "apply": lambda params, x: params * x[:, :1],
    },
    "outputs as a pair": {
        "apply": lambda params, x: (apply(params, x), x),
        "loss": lambda outputs, y: squared(outputs[0], y),
    },
    "outputs by name": {
        "apply": lambda params, x: {"mean": apply(params, x), "none": None},
        "loss": lambda outputs, y: squared(outputs["mean"], y),
    },
    "one output for all rows": {"apply": lambda params, x: apply(params, x).mean()},
    "whole outputs": {"apply": lambda params, x: jnp.round(apply(params, x)).astype(jnp.int32)},
    "boolean outputs": {
        "apply": lambda params, x: apply(params, x) > 0,
        "loss": lambda outputs, y: squared(outputs.astype(float), y),
    },
    "outputs that are not finite": {"apply": lambda params, x: apply(params, x) / 0},
    "a leaked tracer": {"apply": leaking},
    "NumPy inside": {"apply": lambda params, x: np.tanh(x @ params["a"]) @ params["b"]},
    "a branch on values": {"apply": lambda params, x: apply(params, x if x.sum() > 0 else -x)},
    "running statistics that stay": {"init": with_statistics, "apply": still},
    "running statistics that move": {"init": with_statistics, "apply": moving},
    "a state that grows": {
        "init": lambda key: (init(key), {"seen": jnp.zeros(0)}),
        "apply": lambda params, state, x: (
            apply(params, x),
            {"seen": jnp.append(state["seen"], 1)},
        ),
    },
    "a state of whole numbers": {
        "init": lambda key: (init(key), {"steps": jnp.array(0)}),
        "apply": lambda params, state, x: (apply(params, x), {"steps": state["steps"] + 1}),
    },
    "a key in the state": {
        "init": lambda key: (init(key), {"key": key}),
        "apply": lambda params, state, x: (
            apply(params, x) + 1e-3 * jax.random.normal(state["key"], (len(x), 1)),
            {"key": jax.random.split(state["key"])[0]},
        ),
    },
    "a network that prints": {
        "apply": lambda params, x: (jax.debug.callback(lambda: None), apply(params, x))[1]
    },
    "a loop of unknown length": {
        "apply": lambda params, x: (
            jax.lax.while_loop(
                lambda carry: carry[0] < 2,
                lambda carry: (carry[0] + 1, carry[1]),
                (0, jax.lax.stop_gradient(apply(params, x))),
            )[1]
            + apply(params, x)
        )
    },
}
LOSSES: Mapping[str, dict[str, Any]] = {
    "a complex loss": {"loss": lambda outputs, y: (outputs - y).astype(jnp.complex64) ** 2},
    "a whole loss": {"loss": lambda outputs, y: jnp.sum(outputs > y)},
    "a boolean loss": {"loss": lambda outputs, y: jnp.any(outputs > y)},
    "no loss": {"loss": lambda outputs, y: None},
    "a loss of Python": {"loss": lambda outputs, y: 0.0},
    "a loss of text": {"loss": lambda outputs, y: "small"},
    "a loss and more": {
        "loss": lambda outputs, y: (jnp.mean(squared(outputs, y)), {"more": outputs})
    },
    "a loss of one row": {"loss": lambda outputs, y: squared(outputs, y).mean()[None]},
    "a loss of nothing": {"loss": lambda outputs, y: squared(outputs, y)[:0]},
    "a loss that is not finite": {"loss": wide(np.nan)},
    "an infinite loss": {"loss": wide(np.inf)},
    "a constant loss": {"loss": wide(1.0)},
    "a negative loss": {"loss": lambda outputs, y: -squared(outputs, y)},
    "a loss in half precision": {
        "loss": lambda outputs, y: squared(outputs, y).astype(jnp.float16)
    },
    "a loss that raises": {"loss": lambda outputs, y: outputs.no_such_word},
    "a loss of the outputs alone": {"loss": lambda outputs, y: jnp.mean(outputs**2)},
    "a loss with text that is markup": {"loss": lambda outputs, y: {}["[/bold]\x1b[31m"]},
}
# And arguments of `nnref.diagnose`.
OPTIMIZERS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "sharpness-aware steps": lambda: {
        "optimizer": optax.contrib.sam(optax.sgd(0.05), optax.sgd(0.01))
    },
    "sharpness-aware steps inside": lambda: {
        "optimizer": optax.contrib.sam(
            optax.sgd(0.05), optax.sgd(0.01), opaque_mode=True, sync_period=2
        )
    },
    "a schedule-free optimizer": lambda: {"optimizer": optax.contrib.schedule_free_sgd(0.1)},
    "several optimizers": lambda: {
        "optimizer": optax.multi_transform(
            {0: optax.sgd(0.1)}, lambda params: jax.tree.map(lambda _: 0, params)
        )
    },
    "steps that are finite": lambda: {"optimizer": optax.apply_if_finite(optax.sgd(0.1), 3)},
    "a line search": lambda: {"optimizer": optax.lbfgs()},
    "a rate in the state": lambda: {
        "optimizer": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    },
    "a rate of 0": lambda: {"optimizer": optax.sgd(0.0)},
    "a rate that is not finite": lambda: {"optimizer": optax.sgd(np.nan)},
    "a rate below 0": lambda: {"optimizer": optax.sgd(-0.1)},
    "a huge rate": lambda: {"optimizer": optax.sgd(1e30)},
    "no updates": lambda: {"optimizer": optax.set_to_zero()},
    "an optimizer without a state": lambda: {"optimizer": optax.identity()},
    "updates that are None": lambda: {"optimizer": stepping(None, lambda updates: None)},
    "a state of text": lambda: {"optimizer": stepping("text", lambda updates: updates)},
    "Prodigy": lambda: {"optimizer": optax.contrib.prodigy()},
    "Muon": lambda: {"optimizer": optax.contrib.muon(0.01)},
    "decay alone": lambda: {"optimizer": optax.add_decayed_weights(0.1)},
    "several steps at once": lambda: {"optimizer": optax.MultiSteps(optax.sgd(0.1), 3)},
    "a lookahead": lambda: {"optimizer": optax.lookahead(optax.sgd(0.1), 5, 0.5)},
}
ARGUMENTS: Mapping[str, dict[str, Any]] = {
    "a penalty of None": {"penalty": lambda params: None},
    "a penalty that is a number": {"penalty": lambda params: 3},
    "a penalty that is a flag": {"penalty": lambda params: True},
    "a penalty that is text": {"penalty": lambda params: "much"},
    "a penalty that is not finite": {"penalty": lambda params: jnp.nan},
    "a penalty of one number in a list": {"penalty": lambda params: jnp.ones(1)},
    "a complex penalty": {"penalty": lambda params: jnp.array(1j)},
    "a metric of None": {"metric": lambda outputs, y: None},
    "a metric of rows": {"metric": lambda outputs, y: np.ones(len(y))},
    "a metric of text": {"metric": lambda outputs, y: "good"},
    "a metric that is not finite": {"metric": lambda outputs, y: np.nan},
    "a complex metric": {"metric": lambda outputs, y: 1j},
    "a batch of more rows than there are": {"batch_size": 1000},
    "a batch of one row": {"batch_size": 1},
    "no shuffling": {"shuffle": False},
    "another kind": {"kind": "multiclass"},
    "flags": {"kind": "binary"},
    "several flags": {"kind": "multilabel"},
    "a history of one number": {"history": [1.0]},
    "a history that is not finite": {"history": [np.nan] * 50},
    "an empty history": {"history": []},
    "a history of words": {"history": {"loss": ["a", "b"]}},
    "trained parameters of another kind": {"trained": {"c": np.ones(3)}},
    "predictions of nothing": {"predict": lambda x: None},
    "predictions of text": {"predict": lambda x: ["a"] * len(x)},
    "predictions that raise": {"predict": lambda x: x.no_such_word},
}
ALL: Mapping[str, Mapping[str, Any]] = {
    "inputs": INPUTS,
    "targets": TARGETS,
    "network": NETWORKS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "argument": ARGUMENTS,
}


def answer(names: list[tuple[str, str]], effort: float = 1e-9) -> tuple[str, list[str]]:
    """What `diagnose` says of a task with these oddities, `(kind, name)`, and its own mistakes.

    A finding in a line of nnref's is one of these, too.
    """
    KEPT.clear()
    task = {"init": init, "apply": apply, "loss": squared, "train": (X, Y)}
    arguments: dict[str, Any] = {"optimizer": optax.sgd(0.05), "epochs": 3, "batch_size": 16}
    for kind, name in names:
        odd = ALL[kind][name]
        odd = odd() if callable(odd) else odd
        (arguments if kind in ("optimizer", "argument") else task).update(odd)
    try:
        found = nnref.diagnose(nnref.Task(**task), effort=effort, **arguments)
        said = str(found)
        json.dumps(found.to_json())
    except nnref.UserError as error:
        return str(error), []
    except Exception:
        return "", [traceback.format_exc()]
    blamed = [f"blamed: {finding.where}" for finding in found if OWN in finding.where]
    return said, [*found.mistakes, *blamed]


def drawn(seed: int) -> list[tuple[str, str]]:
    """Two to four oddities, at most one of each kind."""
    random = np.random.default_rng(seed)
    kinds = random.choice(list(ALL), random.integers(2, 5), replace=False)
    return [(str(kind), str(random.choice(list(ALL[kind])))) for kind in kinds]
