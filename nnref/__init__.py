"""A small reference trainer in JAX, and the code from which one learns how a network learns."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nnref import checks as checks
    from nnref.checks.regularize import regularize
    from nnref.checks.suite import check
    from nnref.diagnosis.api import diagnose
    from nnref.diagnosis.loop.examine import examine
    from nnref.diagnosis.loop.recording import recording
    from nnref.diagnosis.pipeline.examine import examine_data
    from nnref.errors import UserError
    from nnref.experiment.experiment import Experiment
    from nnref.studies.ablation import ablate
    from nnref.studies.crawl import crawl
    from nnref.studies.lr_range import lr_range
    from nnref.studies.run import AlreadyRun, Run, load, run
    from nnref.studies.sweep import sweep
    from nnref.training.task import Task

DOORS = {
    "AlreadyRun": "nnref.studies.run",
    "Experiment": "nnref.experiment",
    "Run": "nnref.studies.run",
    "Task": "nnref.training.task",
    "UserError": "nnref.errors",
    "ablate": "nnref.studies.ablation",
    "check": "nnref.checks.suite",
    "crawl": "nnref.studies.crawl",
    "diagnose": "nnref.diagnosis.api",
    "examine": "nnref.diagnosis.loop.examine",
    "examine_data": "nnref.diagnosis.pipeline.examine",
    "load": "nnref.studies.run",
    "lr_range": "nnref.studies.lr_range",
    "recording": "nnref.diagnosis.loop.recording",
    "regularize": "nnref.checks.regularize",
    "run": "nnref.studies.run",
    "sweep": "nnref.studies.sweep",
}
__all__ = [
    "AlreadyRun",
    "Experiment",
    "Run",
    "Task",
    "UserError",
    "ablate",
    "check",
    "crawl",
    "diagnose",
    "examine",
    "examine_data",
    "load",
    "lr_range",
    "recording",
    "regularize",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Import a door when it is used: a command that trains nothing starts without JAX."""
    from importlib import import_module

    if name == "checks":  # a wing as a whole
        return import_module("nnref.checks")
    if name not in DOORS:
        raise AttributeError(f"module 'nnref' has no attribute {name!r}")
    return getattr(import_module(DOORS[name]), name)
