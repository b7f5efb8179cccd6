"""Why does a network not learn? Findings, the cause before its symptoms."""

import sys
from types import ModuleType
from typing import Any

from nnref.diagnosis.api import diagnose
from nnref.diagnosis.findings import Finding, Findings
from nnref.diagnosis.recipe import Subject

__all__ = ["Finding", "Findings", "Subject", "diagnose"]


class Room(ModuleType):
    """A package that can be called: `nnref.diagnose(task)` is its door, and its name."""

    def __call__(self, *arguments: Any, **named: Any) -> Findings:
        """See `nnref.diagnose.diagnose`."""
        return diagnose(*arguments, **named)


sys.modules[__name__].__class__ = Room
