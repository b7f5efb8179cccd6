"""The repaired experiment: the change that a diagnosis has proved, written beside the old file."""

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnref.diagnosis.api import from_experiment
from nnref.diagnosis.causes import CAUSES, EDITS
from nnref.diagnosis.findings import Finding, Findings
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.run.starts import first_network
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment, Mistakes, parse, read
from nnref.experiment.text import as_text, locate, read_text, set_path

SEEDS = 3  # from which the old and the new experiment are trained
Content = Mapping[str, Any]
Settings = dict[str, Any]  # values of an experiment, by their path


def value_at(content: Content, path: str) -> Any:
    """The value at a path; None where there is none."""
    value: Any = content
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def digits(value: float) -> float:
    """A number without what binary fractions add to it: 1e-6, and not 1.0000000000000002e-06."""
    return float(f"{value:.12g}")


def times(path: str, factor: float) -> Callable[[Content], Settings]:
    """A number of the experiment times a factor."""

    def change(content: Content) -> Settings:
        value = value_at(content, path)
        if not isinstance(value, int | float):
            return {}
        product = value * factor
        return {path: int(product) if isinstance(value, int) else digits(product)}

    return change


def without(*names: str) -> Callable[[Content], Settings]:
    """Pieces of regularization that are on, switched off."""

    def change(content: Content) -> Settings:
        on = content.get("regularization") or {}
        return {f"regularization.{name}": None for name in names if on.get(name) is not None}

    return change


def trusted_optimizer(factor: float) -> Callable[[Content], Settings]:
    """Adam at 0.001 times a factor, behind a clip of the gradient at 1."""
    return lambda content: {
        "optimizer": {"name": "adam", "learning_rate": 1e-3 * factor},
        "clipping": {"name": "global_norm", "threshold": 1.0},
    }


# What each change of a further run is in an experiment file; the others have no key there.
CHANGES: dict[str, Callable[[Content], Settings]] = {
    **{f"rate x{f:g}": times("optimizer.learning_rate", f) for f in (0.01, 0.1, 10.0, 100.0)},
    "longer": times("epochs", 5),
    "initialization": lambda content: {"model.kernel_initializer": "he_normal"},
    "penalty": without("l1", "l2"),
    "decay": without("l1", "l2", "weight_decay"),
    "quiet": without("dropout"),
    "optimizer": trusted_optimizer(1.0),
    "optimizer x10": trusted_optimizer(10.0),
}


class Repair(NamedTuple):
    """A new file: what was changed in it, and the skill before and after from each seed."""

    path: Path
    settings: Settings
    before: list[float]
    after: list[float]

    @property
    def helps(self) -> bool:
        """Whether it is better from every seed."""
        return all(b > a for a, b in zip(self.before, self.after, strict=True))

    @property
    def difference(self) -> str:
        """The change in one line."""
        return ", ".join(f"{path}={json.dumps(value)}" for path, value in self.settings.items())


def repair(path: str | Path, found: Findings, output: str | Path | None = None) -> Repair:
    """Write the experiment with the proved change of its first fault, and train both.

    The new file has the cause, the change and the proof as comment lines, above the experiment.

    Args:
        path: of the experiment's file.
        found: by a diagnosis of it.
        output: of the new file; `NAME_repaired.json` beside the old one by default.

    Raises:
        UserError: where nothing was proved that an experiment file can say, or the file exists.
    """
    path = Path(path)
    new = path.with_name(f"{path.stem}_repaired.json") if output is None else Path(output)
    if new.exists():
        raise UserError(f"{new} exists; move it away, or give another name")
    experiment, text = read(path), read_text(path)
    content = experiment.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    finding, settings = change_of(content, found)
    for place, value in settings.items():
        set_path(content, place, deepcopy(value))
    try:
        repaired = Experiment(**content)
    except Mistakes as error:
        raise UserError(f"the change {settings} does not fit this experiment: {error}") from None
    before, after = skills(experiment), skills(repaired)
    made = Repair(new, settings, before, after)
    text = in_its_own_line(text, settings, repaired) or as_text(content)
    text = "\n".join([*comments(path, finding, made), text])
    new.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return made


def in_its_own_line(text: str, settings: Settings, repaired: Experiment) -> str | None:
    """The user's text with other values at some paths and everything else as it stands.

    None where a value has no line of its own, or something else would change with it.
    """
    lines, places = text.split("\n"), locate(text)[0]
    for path, value in settings.items():
        if path not in places:
            return None
        at, key = places[path] - 1, re.escape(path.rpartition(".")[2])
        pattern = rf'("{key}"\s*:\s*)([^\s,{{}}\[\]]+)'
        lines[at], count = re.subn(pattern, rf"\g<1>{json.dumps(value)}", lines[at])
        if count != 1:
            return None
    edited = "\n".join(lines)
    return edited if parse(edited).identity == repaired.identity else None


def changed_settings(experiment: Experiment, edit: str) -> Settings:
    """What a change of a further run is in an experiment; {} where no key of it says that."""
    content = experiment.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return CHANGES[edit](content) if edit in CHANGES else {}


def change_of(content: Content, found: Findings) -> tuple[Finding, Settings]:
    """The first finding whose proof is a change that a file can say, and that change.

    Raises:
        UserError: where there is none, with what the report says to type instead.
    """
    for finding in found:
        change = CHANGES.get(finding.edit)
        settings = {} if change is None else change(content)
        if settings:
            return finding, settings
    if not found.faults:
        raise UserError("nothing was found to repair")
    first = found.faults[0]
    raise UserError(
        f"the remedy of {first.cause} is no key of an experiment file; by hand: {first.remedy}"
    )


def skills(experiment: Experiment) -> list[float]:
    """The skill on training rows at the end of a run, from each of a few seeds.

    A network that diverges has the skill -1.
    """
    measured = Measurements(from_experiment(experiment))
    reached = []
    with np.errstate(all="ignore"):
        for further in range(SEEDS):
            start = first_network(measured.recipe, measured.recipe.seed + further)
            run = measured.trainer.run(start)
            reached.append(measured.skill.outcome(run.params, run.state).skill)
    return reached


def comments(path: Path, finding: Finding, made: Repair) -> list[str]:
    """What stands above the repaired experiment, each line a comment."""
    said = CAUSES[finding.cause].sentence
    lines = [
        f"{path.name}, repaired by nnref diagnose --fix: {said} [{finding.cause}]",
        finding.evidence,
        f"changed: {made.difference}",
        f"proof: {EDITS[finding.edit]}, skill on training rows from {SEEDS} seeds "
        f"{in_figures(made.before)} before, {in_figures(made.after)} after",
    ]
    return [f"// {line}" for line in lines]


def in_figures(values: list[float]) -> str:
    """Skills, each with two digits."""
    return ", ".join(f"{value:.2f}" for value in values)
