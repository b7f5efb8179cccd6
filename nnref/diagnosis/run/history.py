"""What the losses of a run say, and its steps where gradients and updates were measured too."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, Findings, fault, note, upstream
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.run import step_faults
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError
from nnref.training.probes import StepParts, all_finite, leaf_norms, update_gradient_cosine

Tree = Any
BORN = ("loss", "gradient", "update")
PARTS = 10  # of a history, whose medians are compared: single batches are noise
SHORTEST = 20  # steps; with fewer, medians of parts say nothing


class Steps(NamedTuple):
    """What steps show: by the path of each parameter a Euclidean norm, (steps,) once stacked."""

    gradient: dict[str, Any]
    update: dict[str, Any]
    update_gradient_cosine: Any  # below 0 descends
    finite: Any  # whether loss, gradients and updates are, (steps, 3)


@jax.jit
def measured(loss: Any, gradients: Tree, updates: Tree) -> Steps:
    """The measures of one step; `updates` is what is added to the parameters, with its sign."""
    step = StepParts((), (), jnp.asarray(loss, jnp.float32), 0.0, gradients, updates)
    return Steps(
        by_path(gradients),
        by_path(updates),
        update_gradient_cosine(step),
        all_finite(loss, gradients, updates),
    )


def by_path(tree: Tree) -> dict[str, Any]:
    """The Euclidean norm of each leaf, by its path."""
    paths = [name_of(path) for path, _ in jax.tree.leaves_with_path(tree)]
    return dict(zip(paths, leaf_norms(tree), strict=True))


class History(NamedTuple):
    """A run as arrays over steps; what was not recorded is None."""

    loss: np.ndarray
    valid: np.ndarray | None = None
    steps: Steps | None = None

    @property
    def parts(self) -> np.ndarray:
        """Medians of the loss over tenths of the run."""
        return np.array([np.median(part) for part in np.array_split(self.loss, PARTS)])


def history_of(losses: Any, steps: Steps | None = None) -> History:
    """A history from what a user has.

    Args:
        losses: a list of them, or a mapping with "loss" and, if known, "valid_loss", one number a
            step or an epoch.
        steps: the measures of the same steps, stacked.

    Raises:
        UserError: for anything else, and for an empty history.
    """
    valid = None
    if isinstance(losses, Mapping):
        if "loss" not in losses:
            raise UserError(
                f"history: no losses among {', '.join(map(repr, losses)) or 'nothing'}; "
                'name them "loss", and those of validation "valid_loss"'
            )
        valid = numbers(losses["valid_loss"]) if "valid_loss" in losses else None
        losses = losses["loss"]
    loss = numbers(losses)
    if not len(loss):
        raise UserError("history: it is empty; give the losses of at least one step")
    return History(loss, valid, steps)


def numbers(values: Any) -> np.ndarray:
    """Losses in double precision.

    Raises:
        UserError: for what are no numbers.
    """
    try:
        return np.ravel(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"history: {type(values).__name__} holds no losses; give a list of numbers, or a "
            'mapping with "loss" and "valid_loss"'
        ) from error


def summarize(history: History) -> dict[str, Any]:
    """Figures of a run.

    Returns:
        `steps`, `first_loss`, `last_loss`, `first_tenth` and `last_tenth` (medians of the losses),
        `best_loss`, `first_nonfinite` (step from 1, or None); and of measured steps, by path, the
        median of `gradient` and `update`.
    """
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
    if history.steps is not None:
        for name, norms in (("gradient", history.steps.gradient), ("update", history.steps.update)):
            figures[name] = {path: float(np.median(part)) for path, part in norms.items()}
    return figures


def finite_steps(history: History) -> np.ndarray:
    """Whether all that is known of each step is finite, (steps,)."""
    finite = np.isfinite(history.loss)
    return finite if history.steps is None else finite & history.steps.finite.all(1)


# What it means


def diagnosed(history: History) -> Findings:
    """What a history says, without its network and its data.

    Returns:
        Findings; what needs more than was recorded is listed as impossible.
    """
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
        tuple(upstream(findings)), tuple(checked), tuple(impossible), summarize(history)
    )


def nonfinite(history: History) -> Iterator[Finding]:
    """The first number that is not finite, and whether the steps before it were growing."""
    wrong = np.flatnonzero(~finite_steps(history))
    if not len(wrong):
        return
    at = int(wrong[0])
    born = "loss"
    grew = at > 0 and np.abs(history.loss[:at]).max() > bound("overshoot") * abs(history.loss[0])
    if history.steps is not None and not history.steps.finite[at].all():
        born = BORN[int(np.flatnonzero(~history.steps.finite[at])[0])]
        lengths = np.sqrt(sum(np.square(norms[:at]) for norms in history.steps.update.values()))
        grew = grew or (at > 1 and lengths.max() > bound("growth") * np.median(lengths))
    before = f"{history.loss[at - 1]:.4g}" if at else "none"
    yield step_faults.first_nonfinite(
        born,
        at + 1,
        f"loss {before} before, {history.loss[0]:.4g} at first",
        grew=bool(grew),
        where=f"step {at + 1}",
        confidence=0.8 if grew else 0.7,
    )


def climbing(history: History) -> Iterator[Finding]:
    """A loss that rises: along the gradient, or by overshooting."""
    steps = history.steps
    cosine = -1.0 if steps is None else float(np.median(steps.update_gradient_cosine))
    if cosine > bound("ascent"):
        yield step_faults.climbing(cosine, "updates", confidence=0.95)
        return
    if len(history.loss) < SHORTEST or not np.isfinite(history.loss).all():
        return
    first, last = history.loss[0], history.parts[-1]
    if last > bound("overshoot") * max(first, 1e-12):
        yield fault(
            "learning_rate_too_high",
            "loss",
            f"the loss rises from {first:.4g} to {last:.4g} (the median of the last tenth)",
            measured=f"{last / max(first, 1e-12):.3g} times the first loss",
            healthy="falls",
            remedy="a tenth of the learning rate",
            confidence=0.7,
        )


def standing(history: History) -> Iterator[Finding]:
    """Parameters whose updates are 0 at every step, though they have a gradient, or have none."""
    steps = history.steps
    assert steps is not None, "asked where steps were measured"
    still = {path for path, norms in steps.update.items() if not np.any(norms)}
    slopes = {path for path, norms in steps.gradient.items() if np.any(norms)}
    lost, everything = sorted(still & slopes), len(still) == len(steps.update)
    make = fault if everything else note
    if lost:
        names = listed(lost)
        yield make(
            "parameters_not_updated",
            names,
            f"{names}: there is a gradient, and the update is 0 at every step",
            "update 0",
            confidence=0.9 if everything else 0.5,
        )
    elif everything and not slopes:
        yield make(
            "vanishing_gradients",
            listed(sorted(still)),
            "the gradient of every parameter is exactly 0 at every step",
            "gradient 0",
            remedy="look for a stop_gradient, rounding, or a loss that does not read the outputs",
            confidence=0.9,
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
        yield note(
            "undertrained",
            "loss",
            f"{ending:.0%} of the fall of the loss comes at the end, after the eighth tenth of "
            "the run: it is not over",
            measured=f"{ending:.0%}",
            healthy=f"below {bound('still falling'):.0%}",
            remedy="more epochs, or a larger learning rate",
            confidence=0.6,
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
        yield note(
            "learning_rate_too_high",
            "loss",
            f"the loss swings: after {turns:.0%} of the steps it turns, by {swing:.3g} each time",
            measured=f"{turns:.0%}",
            healthy="two thirds, which chance gives",
            remedy="a tenth of the learning rate",
            confidence=0.5,
        )
    elif abs(fallen) <= bound("fallen") * abs(parts[0]):
        yield note(
            "learning_rate_too_low",
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
            yield note(
                "overfitting",
                "validation",
                f"the validation loss is best at {best + 1} of {len(valid)} ({valid[best]:.4g}) "
                f"and ends at {valid[-1]:.4g}, while the training loss goes on falling",
                measured=f"{valid[-1] / max(valid[best], 1e-12):.3g} times its best",
                healthy=f"below {bound('turned'):g}",
                remedy="stop there; more data, weight decay or dropout",
                confidence=0.8,
            )


NEEDED = {"steps": "gradients and updates", "valid": "validation losses"}
LOOKS: dict[str, tuple[tuple[str, ...], Callable[[History], Iterator[Finding]]]] = {
    "numbers that are not finite": ((), nonfinite),
    "a loss that climbs": ((), climbing),
    "parameters that do not move": (("steps",), standing),
    "a loss that stalls, or still falls at the end": ((), stalled),
    "a loss that stands, or swings": ((), standing_still),
    "validation against training": (("valid",), rising_on_validation),
}
