"""A file of unit tests for one network, written from the properties that hold of it."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnref.checks import network, rows
from nnref.checks.subject import NotApplicable, Subject, subject
from nnref.checks.suite import LEARNS, NETWORK, Call, calls_of
from nnref.errors import UserError
from nnref.training.compilation import usual_settings

GAIN = 0.1  # of skill, that a later run may lack: the noise of another version or machine
WITHIN = 0.3  # of a signal or a loss: what another draw of the same start changes
OF_DATA = 0.1  # of a mean or a deviation of the data
STEP = 3.0  # times as far, or under, as parameters have moved in the first steps

HEAD = '''"""Unit tests of {task}, written by `nnref unit-tests`: what held of it, in figures.

They are yours to edit. A test that fails says what no longer holds, and what is measured now.
"""

import pytest

from nnref import checks


@pytest.fixture(scope="module")
def subject():
    """What is measured of the network, compiled once for all tests."""
    return checks.subject("{task}")
'''


@usual_settings()
def unit_tests(task: str, path: str | Path) -> list[str]:
    """Write the tests of a network; the names of the properties that they test.

    Args:
        task: an experiment's path, or "package.module:make_task".
        path: of the file to write.

    Raises:
        UserError: where a property fails, or the file is no file of Python, or is there already.
    """
    if Path(path).suffix != ".py":
        raise UserError(f"-o {path}: give a file that ends in .py")
    if Path(path).exists():  # tests that somebody has written on, or the network itself
        raise UserError(f"{path} is there already; give another file: -o PATH")
    asked = subject(task)
    tests = {}
    try:
        for name, ask in calls_of(asked, NETWORK | LEARNS).items():
            with suppress(NotApplicable):
                tests[name] = as_test(name, *as_strict(ask), asked)
    except AssertionError as error:
        raise UserError(
            f"{task} is not healthy, and tests would hold it to its fault; first: nnref diagnose "
            f"{task}\n{error}"
        ) from None
    text = "\n\n".join([HEAD.format(task=task), *tests.values()])
    Path(path).write_text(text, encoding="utf-8")
    return list(tests)


def as_strict(ask: Call) -> tuple[dict[str, Any], bool]:
    """The figures of a property, and whether it holds strictly, so that its test may ask that.

    Raises:
        AssertionError: where it does not hold otherwise either.
    """
    try:
        return ask(strict=True), True
    except AssertionError:
        return ask(strict=False), False


def as_test(name: str, measured: dict[str, Any], strict: bool, asked: Subject) -> str:
    """One test, as text: the reason, the call, and the measured figures as bounds."""
    property_, _, split = name.partition(", ")
    ask = getattr(network, property_, None) or getattr(rows, property_)
    reason = (ask.__doc__ or "").partition("\n")[0]
    asserted = BOUNDS.get(property_, nothing)
    lines = [asserted(key, value, measured) for key, value in measured.items()]
    lines = [f"    assert {line}" for line in lines if line]
    result = "measured = " if lines else ""
    return "\n".join(
        [
            f"def test_{name.replace(', ', '_of_')}(subject):",
            f'    """{reason}"""',
            f"    {result}{call(property_, split, strict, asked)}",
            *lines,
            "",
        ]
    )


def call(name: str, split: str, strict: bool, asked: Subject) -> str:
    """The call of a property, as text."""
    arguments = ["subject.recipe.train" if hasattr(rows, name) else "subject"]
    if split:
        arguments.append(f"subject.recipe.{split.removesuffix('ation')}")
    if name == "labels_belong_to_rows":
        arguments.append(f'kind="{asked.measured.skill.kind}"')
    if not strict:
        arguments.append("strict=False")
    return f"checks.{name}({', '.join(arguments)})"


# What is asserted of a figure: its name, its value, and all figures of the property.


def nothing(key: str, value: Any, measured: dict[str, Any]) -> str:
    """The call says it all."""
    return ""


def skill(key: str, value: Any, measured: dict[str, Any]) -> str:
    """At least as good, but for noise."""
    return f'measured["{key}"] >= {value - GAIN:.3f}' if key.startswith("skill") else ""


def near(key: str, value: Any, measured: dict[str, Any]) -> str:
    """As large, but for another draw; a number of parameters is the same."""
    if isinstance(value, int):
        return f'measured["{key}"] == {value}'
    return f'measured["{key}"] == pytest.approx({value:.4g}, rel={WITHIN}, abs=1e-6)'


def of_data(key: str, value: Any, measured: dict[str, Any]) -> str:
    """As in the data of then, a tenth of their deviation more or less."""
    if isinstance(value, int):
        return f'measured["{key}"] == {value}'
    which = "targets" if "targets" in key else "inputs"
    free = OF_DATA * measured[f"deviation of the {which}"] if key.startswith("mean") else 0.0
    return f'measured["{key}"] == pytest.approx({value:.4g}, rel={OF_DATA}, abs={free:.3g})'


def moves(key: str, value: Any, measured: dict[str, Any]) -> str:
    """Parameters as many, and steps of about the same length."""
    if isinstance(value, int):
        return f'measured["{key}"] == {value}'
    if key.startswith("share"):
        return f'measured["{key}"] >= {value - GAIN:.3f}'
    return f'{value / STEP:.3g} <= measured["{key}"] <= {value * STEP:.3g}'


BOUNDS: dict[str, Callable[[str, Any, dict[str, Any]], str]] = {
    "data_summary": of_data,
    "labels_belong_to_rows": skill,
    "learns": skill,
    "overfits_one_batch": skill,
    "loss_at_start": near,
    "signal_at_start": near,
    "train_and_eval_modes_differ_only_as_told": near,
    "all_parameters_train": moves,
}
