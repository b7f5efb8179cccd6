"""Listeners: who hears of a run while it trains, and what Ctrl-C does."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnref.data import Dataset
from nnref.experiment.experiment import Experiment
from nnref.training import loop


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
