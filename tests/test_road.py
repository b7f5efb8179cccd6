"""The road of the learning rate: from the experiment file to the update, wing by wing."""

import inspect
import sys
from pathlib import Path

import nnref
from nnref.experiment import Experiment
from nnref.parts.optimizers import Optimizer
from nnref.studies.run import run
from nnref.training.setup import Setup

PACKAGE = f"{Path(nnref.__file__).parent.as_posix()}/"
RATE = "optimizer.learning_rate"


def carries_the_rate(value):
    if isinstance(value, dict):
        return RATE in value
    return isinstance(value, Experiment | Setup | Optimizer)


def calls_that_carry_the_rate(act):
    """Calls into nnref, as (wing, function), of which an argument carries the rate."""
    calls = []

    def note(frame, event, _):
        # As text: the hook is asked at every call of every library.
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            names, starred, double_starred, values = inspect.getargvalues(frame)
            arguments = [values.get(name) for name in names]
            arguments += values.get(starred, ())
            arguments += values.get(double_starred, {}).values()
            if any(map(carries_the_rate, arguments)):
                place = frame.f_code.co_filename.removeprefix(PACKAGE).removesuffix(".py")
                calls.append((place.split("/")[0], f"{place}:{frame.f_code.co_qualname}"))

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


def test_the_learning_rate_moves_at_most_17_times_between_wings():
    experiment = Path(PACKAGE).parent / "experiments" / "digits_mlp.json"
    calls = calls_that_carry_the_rate(lambda: run(experiment, epochs=2, seeds=[0], logbook=None))
    moves = [0] + [n for n in range(1, len(calls)) if calls[n][0] != calls[n - 1][0]]
    for number, (begin, end) in enumerate(zip(moves, [*moves[1:], len(calls)], strict=True)):
        print(f"{number:3} {calls[begin][0]}: {', '.join(name for _, name in calls[begin:end])}")
    wings = [calls[n][0] for n in moves]
    builds = sum(name.endswith(":chain") for _, name in calls)
    print(f"{len(calls)} calls, {len(wings) - 1} moves, the optimizer is built {builds} times")
    assert {"experiment", "training", "parts"} <= set(wings)
    assert len(wings) - 1 <= 17, " -> ".join(wings)
    assert builds <= 4
