"""Measures for a training loop of one's own, and what a record of them says.

watch = nnref.watch()
start = watch.init(params)
...                                    # in the step, jitted or scanned:
record = watch.measure(start, params, loss, gradients, updates)
...                                    # after the loop, with the records of all steps:
print(watch.summarize(records))
print(nnref.diagnose_history(records))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, Findings, upstream
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.run import step_faults
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError
from nnref.training.probes import (
    StepParts,
    all_finite,
    leaf_norms,
    update_gradient_cosine,
    update_ratio,
)

Tree = Any
BORN = ("loss", "gradient", "update", "parameters")
PARTS = 10  # of a history, whose medians are compared: single batches are noise
SHORTEST = 20  # steps; with fewer, medians of parts say nothing


class Record(NamedTuple):
    """What one step shows: scalars, and Euclidean norms by the path of each parameter."""

    loss: Any
    gradient: dict[str, Any]
    update: dict[str, Any]
    weight: dict[str, Any]
    moved: dict[str, Any]  # distance from the start, before the step
    update_gradient_cosine: Any  # below 0 descends
    finite: Any  # of loss, gradients, updates, parameters


class Watch(NamedTuple):
    """Three pure functions; see `watch`."""

    init: Callable[[Tree], Tree]
    measure: Callable[[Tree, Tree, Any, Tree, Tree], Record]
    summarize: Callable[[Any], dict[str, Any]]


def watch() -> Watch:
    """Functions that measure the steps of any training loop.

    `init(params)` gives the start, to be kept; `measure(start, params, loss, gradients, updates)`
    gives the Record of a step, where `params` are those before the step and `updates` what is added
    to them: it can be jitted, and scanned, which stacks the records by itself; in a Python loop,
    append them to a list. `summarize(records)` gives figures of a whole run, and
    `diagnose_history(records)` what they mean.
    """
    return Watch(start_of, measure, summarize)


def start_of(params: Tree) -> Tree:
    """The parameters from which movement is measured, in arrays of their own."""
    return jax.tree.map(jnp.array, params)


def measure(start: Tree, params: Tree, loss: Any, gradients: Tree, updates: Tree) -> Record:
    """The Record of a step.

    Args:
        start: of `init`.
        params: before the step.
        loss: scalar.
        gradients: tree like the parameters.
        updates: what is added to the parameters, with its sign.
    """
    step = StepParts(params, (), jnp.asarray(loss, jnp.float32), 0.0, gradients, updates)
    return Record(
        loss=step.loss,
        gradient=by_path(gradients),
        update=by_path(updates),
        weight=by_path(params),
        moved=by_path(jax.tree.map(lambda now, then: now - then, params, start)),
        update_gradient_cosine=update_gradient_cosine(step),
        finite=all_finite(loss, gradients, updates, params),
    )


def by_path(tree: Tree) -> dict[str, Any]:
    """The Euclidean norm of each leaf, by its path."""
    paths = [name_of(path) for path, _ in jax.tree.leaves_with_path(tree)]
    return dict(zip(paths, leaf_norms(tree), strict=True))


# A whole run


class History(NamedTuple):
    """A run as arrays over steps; what was not recorded is None."""

    loss: np.ndarray
    valid: np.ndarray | None = None
    record: Record | None = None

    @property
    def parts(self) -> np.ndarray:
        """Medians of the loss over tenths of the run."""
        return np.array([np.median(part) for part in np.array_split(self.loss, PARTS)])


def history_of(records: Any) -> History:
    """A history from what a user has.

    Args:
        records: a list of Records, a Record of arrays (as a scan stacks them), a list of losses, or
            a mapping with "loss" and, if known, "valid_loss", one number a step or an epoch.

    Raises:
        UserError: for anything else, and for an empty history.
    """
    valid = None
    if isinstance(records, Record):
        record: Record | None = jax.tree.map(np.asarray, records)
    elif isinstance(records, Sequence) and records and isinstance(records[0], Record):
        record = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(records))
    else:
        record = None
    if record is not None:
        # chunks of a scan within a scan: steps in their order
        loss = np.ravel(record.loss)
        record = jax.tree.map(lambda leaf: unchunked(leaf, len(loss)), record)
    elif isinstance(records, Mapping):
        if "loss" not in records:
            raise UserError(
                f"history: no losses among {', '.join(map(repr, records)) or 'nothing'}; "
                'name them "loss", and those of validation "valid_loss"'
            )
        loss = numbers(records["loss"])
        valid = numbers(records["valid_loss"]) if "valid_loss" in records else None
    else:
        loss = numbers(records)
    if not len(loss):
        raise UserError("history: it is empty; give the losses of at least one step")
    return History(loss, valid, record)


def unchunked(leaf: Any, steps: int) -> np.ndarray:
    """A leaf of records with one row a step; numbers in double precision."""
    leaf = np.reshape(leaf, (steps, -1))
    leaf = leaf[:, 0] if leaf.shape[1] == 1 else leaf
    return leaf if leaf.dtype == bool else leaf.astype(np.float64)


def numbers(values: Any) -> np.ndarray:
    """Losses in double precision.

    Raises:
        UserError: for what are no numbers.
    """
    try:
        return np.ravel(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"history: {type(values).__name__} holds no losses; give a list of numbers, a mapping "
            'with "loss", or the records of nnref.watch'
        ) from error


def summarize(records: Any) -> dict[str, Any]:
    """Figures of a run: losses, and by parameter the medians of gradient, step and movement.

    Args:
        records: see `history_of`.

    Returns:
        `steps`, `first_loss`, `last_loss`, `first_tenth` and `last_tenth` (medians of the losses),
        `best_loss`, `first_nonfinite` (step from 1, or None); and with records, by path:
        `gradient`, `update_to_weight`, `moved_to_weight`.
    """
    history = history_of(records)
    wrong = np.flatnonzero(~finite_steps(history))
    parts = history.parts if len(history.loss) >= PARTS else history.loss
    figures: dict[str, Any] = {
        "steps": len(history.loss),
        "first_loss": float(history.loss[0]),
        "last_loss": float(history.loss[-1]),
        "first_tenth": float(parts[0]),
        "last_tenth": float(parts[-1]),
        "best_loss": float(np.nanmin(history.loss)) if np.isfinite(history.loss).any() else None,
        "first_nonfinite": int(wrong[0]) + 1 if len(wrong) else None,
    }
    if history.record is None:
        return figures
    record = history.record
    for name, values in (
        ("gradient", record.gradient),
        ("update_to_weight", ratios(record.update, record.weight)),
        ("moved_to_weight", ratios(record.moved, record.weight)),
    ):
        last = name == "moved_to_weight"
        figures[name] = {
            path: float(np.ravel(part)[-1] if last else np.median(part))
            for path, part in values.items()
        }
    return figures


def ratios(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """By path; where a weight is 0, as biases are at the start, against 1e-8."""
    with np.errstate(invalid="ignore"):  # a run that ended in infinities has figures all the same
        return {path: update_ratio(part, below[path], 1e-8) for path, part in above.items()}


def update_ratios(record: Record) -> np.ndarray:
    """The norm of each step's update over the norm of all parameters together, (steps,)."""
    update, weight = (
        np.sqrt(sum(np.square(norm) for norm in part.values()))
        for part in (record.update, record.weight)
    )
    with np.errstate(invalid="ignore"):
        return update_ratio(update, weight, 1e-30)


def finite_steps(history: History) -> np.ndarray:
    finite = np.isfinite(history.loss)
    if history.record is not None:
        finite = finite & np.reshape(history.record.finite, (len(finite), -1)).all(1)
    return finite


# What it means


def diagnose_history(records: Any) -> Findings:
    """What the record of a run says, without its network and its data.

    Args:
        records: of `nnref.watch`, or plain losses: see `history_of`.

    Returns:
        Findings; what needs more than was recorded is listed as impossible.

    Raises:
        UserError: for what is no history.
    """
    history = history_of(records)
    findings: list[Finding] = []
    checked, impossible = [], []
    for name, (needs, look) in LOOKS.items():
        missing = [need for need in needs if getattr(history, need) is None]
        if missing:
            impossible.append(f"{name}: no {NEEDED[missing[0]]}")
            continue
        checked.append(name)
        findings += look(history)
    faults = {finding.cause for finding in findings if finding.severity == "fault"}
    findings = [f for f in findings if f.severity == "fault" or f.cause not in faults]
    return Findings(
        tuple(upstream(findings)), tuple(checked), tuple(impossible), summarize(records)
    )


def nonfinite(history: History) -> Iterator[Finding]:
    """The first number that is not finite, and whether the steps before it were growing."""
    wrong = np.flatnonzero(~finite_steps(history))
    if not len(wrong):
        return
    at = int(wrong[0])
    born = "loss"
    grew = at > 0 and np.abs(history.loss[:at]).max() > bound("overshoot") * abs(history.loss[0])
    if history.record is not None:
        flags = np.reshape(history.record.finite, (len(history.loss), -1))[at]
        born = BORN[int(np.flatnonzero(~flags)[0])] if not flags.all() else "loss"
        steps = update_ratios(history.record)[max(at - 5, 0) : at]
        grew = grew or bool(steps.size and steps.max() > bound("leap"))
    before = f"{history.loss[at - 1]:.4g}" if at else "none"
    yield step_faults.first_nonfinite(
        born,
        at + 1,
        f"loss {before} before, {history.loss[0]:.4g} at first",
        grew=grew,
        where=f"step {at + 1}",
        confidence=0.8 if grew else 0.7,
    )


def climbing(history: History) -> Iterator[Finding]:
    """A loss that rises: along the gradient, or by overshooting."""
    record = history.record
    cosine = -1.0 if record is None else float(np.median(record.update_gradient_cosine))
    if cosine > bound("ascent"):
        yield step_faults.climbing(cosine, "updates", confidence=0.95)
        return
    if len(history.loss) < SHORTEST or not np.isfinite(history.loss).all():
        return
    first, last = history.loss[0], history.parts[-1]
    if last > bound("overshoot") * max(first, 1e-12):
        yield Finding(
            "learning_rate_too_high",
            "fault",
            "loss",
            f"the loss rises from {first:.4g} to {last:.4g} (the median of the last tenth)",
            measured=f"{last / max(first, 1e-12):.3g} times the first loss",
            healthy="falls",
            remedy="a tenth of the learning rate",
            confidence=0.7,
        )


def standing(history: History) -> Iterator[Finding]:
    """Parameters that do not move, all of them or some, though they have a gradient."""
    record = history.record
    assert record is not None, "asked where steps were recorded"
    if len(history.loss) < 2:
        return
    still = {path for path, moved in record.moved.items() if not np.any(moved)}
    slopes = {path for path, slope in record.gradient.items() if np.any(slope)}
    lost, numb = sorted(still & slopes), sorted(still - slopes)
    everything = len(still) == len(record.moved)
    if lost or (everything and not slopes):
        names = ", ".join(lost or numb)
        yield Finding(
            "parameters_not_updated" if lost else "vanishing_gradients",
            "fault" if everything else "note",
            names,
            f"{names}: never moved, though "
            + ("it has a gradient" if lost else "it was trained: its gradient is exactly 0"),
            measured="moved by 0",
            healthy="moves at every step",
            remedy="params = optax.apply_updates(params, updates), and carry the new params on"
            if lost
            else "look for a stop_gradient, rounding, or a loss that does not read the outputs",
            confidence=0.9 if everything else 0.5,
        )


def stalled(history: History) -> Iterator[Finding]:
    """A loss that does not fall, or that is still falling at the end."""
    if len(history.loss) < SHORTEST or not np.isfinite(history.loss).all():
        return
    parts = history.parts
    span = parts.max() - parts.min()
    fallen = parts[0] - parts[-1]
    ending = (parts[-3] - parts[-1]) / span if span > 0 else 0.0
    if fallen > 0 and ending > bound("still falling"):
        yield Finding(
            "undertrained",
            "note",
            "loss",
            f"{ending:.0%} of the fall of the loss comes at the end, after the eighth tenth of "
            "the run: it is not over",
            measured=f"{ending:.0%}",
            healthy=f"below {bound('still falling'):.0%}",
            remedy="more epochs, or a larger learning rate",
            confidence=0.6,
        )
    if history.record is None or fallen > bound("fallen") * abs(parts[0]):
        return
    largest = float(np.median(update_ratios(history.record)))
    if 0 < largest < bound("slow step"):
        yield Finding(
            "learning_rate_too_low",
            "fault",
            "updates",
            f"the loss goes from {parts[0]:.4g} to {parts[-1]:.4g}, and half of the updates are "
            f"shorter than {largest:.1e} of the weights",
            measured=f"{largest:.1e}",
            healthy="about 1e-3",
            remedy="a learning rate ten to a hundred times as large",
            confidence=0.7,
        )


def standing_still(history: History) -> Iterator[Finding]:
    """A loss that stays where it began, or that swings from step to step."""
    loss = history.loss
    if len(loss) < SHORTEST or not np.isfinite(loss).all():
        return
    moves = np.diff(loss)
    turns = float((moves[1:] * moves[:-1] < 0).mean())
    swing = float(np.median(np.abs(moves)))
    parts = history.parts
    fallen = parts[0] - parts[-1]
    if turns > bound("turns") and swing > bound("fallen") * abs(parts[-1]) and swing > fallen:
        yield Finding(
            "learning_rate_too_high",
            "note",
            "loss",
            f"the loss swings: after {turns:.0%} of the steps it turns, by {swing:.3g} each time",
            measured=f"{turns:.0%}",
            healthy="two thirds, which chance gives",
            remedy="a tenth of the learning rate",
            confidence=0.5,
        )
    elif abs(fallen) <= bound("fallen") * abs(parts[0]):
        yield Finding(
            "learning_rate_too_low",
            "note",
            "loss",
            f"the loss stands at {parts[-1]:.4g}: it began at {parts[0]:.4g}. Losses alone do not "
            "tell why",
            measured=f"{fallen / max(abs(parts[0]), 1e-12):.1%} of it fell",
            healthy=f"above {bound('fallen'):.0%}",
            remedy="nnref.diagnose(task, optimizer=..., history=losses)",
            confidence=0.2,
        )


def rising_on_validation(history: History) -> Iterator[Finding]:
    """Validation that turns while training goes on falling."""
    valid = history.valid
    assert valid is not None, "asked where it was recorded"
    if not np.isfinite(valid).all() or not np.isfinite(history.loss).all():
        return
    best = int(valid.argmin())
    if len(valid) > 2 and valid[-1] > bound("turned") * max(valid[best], 1e-12):
        place = best * len(history.loss) // len(valid)
        if history.loss[-1] < history.loss[place]:
            yield Finding(
                "overfitting",
                "note",
                "validation",
                f"the validation loss is best at {best + 1} of {len(valid)} ({valid[best]:.4g}) "
                f"and ends at {valid[-1]:.4g}, while the training loss goes on falling",
                measured=f"{valid[-1] / max(valid[best], 1e-12):.3g} times its best",
                healthy=f"below {bound('turned'):g}",
                remedy="stop there; more data, weight decay or dropout",
                confidence=0.8,
            )


NEEDED = {"record": "records of nnref.watch", "valid": "validation losses"}
LOOKS: dict[str, tuple[tuple[str, ...], Callable[[History], Iterator[Finding]]]] = {
    "numbers that are not finite": ((), nonfinite),
    "a loss that climbs": ((), climbing),
    "parameters that do not move": (("record",), standing),
    "a loss that stalls, or still falls at the end": ((), stalled),
    "a loss that stands, or swings": ((), standing_still),
    "validation against training": (("valid",), rising_on_validation),
}
