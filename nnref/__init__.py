"""A small reference trainer in JAX, and the code from which one learns how a network learns."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nnref.diagnose import diagnose
    from nnref.diagnose.watch import diagnose_history, watch
    from nnref.errors import UserError
    from nnref.experiment import Experiment
    from nnref.runs import AlreadyRun, Run, run
    from nnref.task import Task

DOORS = {
    "AlreadyRun": "nnref.runs",
    "Experiment": "nnref.experiment",
    "Run": "nnref.runs",
    "Task": "nnref.task",
    "UserError": "nnref.errors",
    "diagnose": "nnref.diagnose",
    "diagnose_history": "nnref.diagnose.watch",
    "run": "nnref.runs",
    "watch": "nnref.diagnose.watch",
}
__all__ = [
    "AlreadyRun",
    "Experiment",
    "Run",
    "Task",
    "UserError",
    "diagnose",
    "diagnose_history",
    "run",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import a door when it is used: a command that trains nothing starts without JAX."""
    if name not in DOORS:
        raise AttributeError(f"module 'nnref' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(DOORS[name]), name)
