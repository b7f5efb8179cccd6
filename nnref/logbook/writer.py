"""The logbook: writing the page of a run as it happens."""

import fcntl
import os
import platform
import subprocess
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO

import jax
import numpy as np
import orjson

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.logbook.pages import FORMAT, Page, page_paths, probes_path, read_page

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


def open_alone(path: Path, mode: str) -> IO[str]:
    """Open a page to write on it, as the only one that does; its folder is made.

    Raises:
        UserError: where another process is writing the page, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open(mode, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: {(error.strerror or 'cannot be written').lower()}; "
            "choose another folder with --logbook, or none with --no-logbook"
        ) from None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UserError(f"{path}: another process is writing this page") from None
    return stream


class Writer:
    """A page being written. Lines go to disk with every call."""

    def __init__(self, path: Path, written: Page | None, stream: IO[str]):
        self.path = path
        self.written = written  # what stood on the page before, when a run goes on
        self.stream = stream
        self.columns: list[str] = list(written.history) if written else []

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        experiment: Experiment,
        seed: int,
        facts: dict[str, str],
        again: bool = False,
    ) -> "Writer":
        """A new page, or the last one where that was cut short and would go on the same.

        Args:
            folder: of the pages of this name.
            name: of the experiment.
            experiment: frozen on the page, for this seed alone.
            seed: of the run.
            facts: what besides the experiment may decide a loss: a page is continued only where
                they are still the same.
            again: begin a new page in any case.

        Raises:
            UserError: where another process is writing the page, or the folder cannot be written.
        """
        paths = page_paths(folder, experiment.identity, seed)
        last = read_page(paths[-1]) if paths and not again else None
        before = last if last is not None and last.goes_on_with(facts) else None
        suffix = f"-{len(paths) + 1}" if paths else ""
        path = folder / f"{experiment.identity}-seed{seed}{suffix}.json"
        path = path if before is None else before.path
        stream = open_alone(path, "x" if before is None else "a")
        writer = cls(path, before, stream)
        if before is not None:
            writer.write(f"{before.before_a_line}// continued: {now()}\n")
        else:
            page = experiment.model_copy(update={"seeds": (seed,)})
            head = [f"page {FORMAT} of {name}", f"identity: {experiment.identity}"]
            head += [f"started: {now()}", *(f"{key}: {value}" for key, value in facts.items())]
            writer.write(page.to_json() + "".join(f"// {line}\n" for line in head))
        return writer

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def rows(self, first: int, history: dict[str, np.ndarray]) -> None:
        """Append the lines of some epochs; those that the page already has are compared with it.

        Args:
            first: number of the first epoch.
            history: measure -> (epochs,), NaN where there is no value.

        Raises:
            UserError: where a repeated epoch gives other losses than the page says.
        """
        if not self.columns:
            self.columns = list(history)
            self.write(f"// epoch {' '.join(self.columns)}\n")
        table = np.stack([history[name] for name in self.columns], axis=1)
        if self.written is not None and first <= self.written.epochs:
            known = self.written.epochs + 1 - first
            stored = np.stack([self.written.history[name] for name in self.columns], axis=1)
            same = stored[first : first + len(table)]
            if not np.array_equal(same, table[: len(same)], equal_nan=True):
                raise UserError(
                    f"{self.path}: the epochs written before the run was cut short come out "
                    "different now; run it anew with --again"
                )
            table, first = table[known:], first + known
        lines = [f"// {epoch} {row}\n" for epoch, row in enumerate(in_decimals(table), first)]
        self.write("".join(lines))

    def probes(self, table: np.ndarray) -> None:
        """Keep the measures of the layers beside the page; a table replaces one of fewer rows."""
        path = probes_path(self.path)
        half = path.with_suffix(".half")
        with half.open("wb") as stream:
            np.save(stream, table, allow_pickle=False)
        half.replace(path)

    def conclude(self, facts: dict[str, str]) -> None:
        """Write what is known at the end, the verdict last."""
        self.write("".join(f"// {key}: {value}\n" for key, value in facts.items()))


def in_decimals(table: np.ndarray) -> list[str]:
    """Rows of float32 with the fewest digits that give the same numbers back, - for NaN."""
    if np.isinf(table).any():  # JSON has no word for it
        return [" ".join(map(str, row)).replace("nan", "-") for row in table]
    table = np.ascontiguousarray(table, np.float32)
    rows = orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY).decode()[2:-2]
    return rows.replace("null", "-").replace("],[", "\n").replace(",", " ").split("\n")


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


@cache
def machine_facts() -> dict[str, str]:
    """What besides the experiment may decide a loss: versions, machine, code."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return {
        "versions": f"nnref {version('nnref')}, python {platform.python_version()}, {libraries}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": ", ".join(sorted({f"{d.platform} {d.device_kind}" for d in jax.devices()})),
        "commit": git_commit(),
    }


def git_commit() -> str:
    """The commit of the folder in which the command runs, with "+" where files differ from it."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return said.stdout.strip() or "none"
