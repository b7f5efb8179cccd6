"""Listeners: who hears of a run while it trains, and what Ctrl-C does."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nnref.data import Dataset
from nnref.experiment.experiment import Experiment
from nnref.training import loop

MOST = 4  # measures in the line of a notebook


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed: the chunk in hand was finished and its lines are written."""

    page: Path | None = None  # of the first seed; the run goes on when it is resumed


class Listener:
    """Hears how a run goes; the terminal is one. Every method may be left as it is."""

    def reads(self, dataset: Dataset) -> None:
        """The data are read; nothing is trained yet."""

    def begins(
        self, experiment: Experiment, seeds: Sequence[int], steps_per_epoch: int, note: str
    ) -> None:
        """Training starts; `note` says what the logbook knew before."""

    def hears(self, chunk: loop.Chunk) -> None:
        """Some epochs are done."""

    def ends(self) -> None:
        """Training is over, however it ended."""


def listener_here() -> Listener:
    """The line of a notebook where this runs in one, else a listener that says nothing."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return Listener() if getattr(shell, "kernel", None) is None else NotebookListener()


class NotebookListener(Listener):
    """Epoch, the last value of each measure and the time left, in a line that is written over."""

    def __init__(self) -> None:
        self.line: Any = None  # the display that is written over
        self.epochs = 0
        self.began = 0.0
        self.told = ""
        self.measured: list[str] = []

    def begins(
        self, experiment: Experiment, seeds: Sequence[int], steps_per_epoch: int, note: str
    ) -> None:
        """Say what the logbook knew, and open the line."""
        from IPython.display import display

        if note:
            display({"text/plain": note}, raw=True)
        self.epochs, self.began = experiment.epochs, time.perf_counter()
        self.told = f"epoch 0 of {self.epochs}"
        self.line = display({"text/plain": self.told}, raw=True, display_id=True)

    def hears(self, chunk: loop.Chunk) -> None:
        """Write the line anew; of several seeds it tells the medians."""
        done = max(chunk.first + len(chunk.active) - 1 + chunk.share, 0)
        if len(chunk.active):  # in the midst of an epoch nothing is measured
            self.measured = [
                f", {name} {np.nanmedian(known):.4g}"
                for name, values in chunk.history.items()
                if not np.isnan(known := values[-1][chunk.active[-1]]).all()
            ][:MOST]
        spent = time.perf_counter() - self.began
        left = f", {spent * (self.epochs - done) / done:.0f} s left" if done else ""
        self.told = f"epoch {done:.0f} of {self.epochs}{''.join(self.measured)}"
        self.write(self.told + left)

    def ends(self) -> None:
        """Leave what was last measured, and how long it took."""
        if self.line is not None:
            self.write(f"{self.told}, {time.perf_counter() - self.began:.1f} s")

    def write(self, text: str) -> None:
        """Put a text in the place of the line."""
        self.line.update({"text/plain": text}, raw=True)


class Listeners(Listener):
    """Several listeners as one: each hears everything, in turn."""

    def __init__(self, *listeners: Listener):
        self.listeners = listeners

    def reads(self, dataset: Dataset) -> None:
        for listener in self.listeners:
            listener.reads(dataset)

    def begins(self, *arguments: Any, **keywords: Any) -> None:
        for listener in self.listeners:
            listener.begins(*arguments, **keywords)

    def hears(self, chunk: loop.Chunk) -> None:
        for listener in self.listeners:
            listener.hears(chunk)

    def ends(self) -> None:
        for listener in self.listeners:
            listener.ends()


class SweepListener:
    """Hears how a sweep goes; the terminal is one. Called from several threads."""

    def begins(self, epochs: int, done: int) -> None:
        """Training starts: epochs of all runs together, and how many are finished."""

    def hears(self, epochs: int) -> None:
        """So many more epochs are done or, where a run ended early, left out."""

    def ends(self) -> None:
        """Training is over, however it ended."""


@contextmanager
def one_interrupt_waits() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the end of a chunk; the second one acts at once."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread alone
        return

    def press(number: int, frame: Any) -> None:
        if pressed:
            raise Interrupted
        pressed.append(number)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
