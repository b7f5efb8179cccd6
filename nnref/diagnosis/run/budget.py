"""The work that the runs of a diagnosis may take, counted and never timed."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Budget:
    """The work that runs may still take, in seconds of an idle core.

    It is counted from the traced step and never by a clock: what is tried, and so what is found,
    is the same however busy the machine is.
    """

    left: float = np.inf

    def affords(self, work: float) -> bool:
        """Whether this much work is left."""
        return work <= self.left

    def spend(self, work: float) -> None:
        """Take off what was done."""
        self.left -= work
