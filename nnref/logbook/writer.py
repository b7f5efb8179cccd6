"""The logbook: writing the page of a run as it happens."""

import fcntl
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, Generic, Self, TypeVar

import jax
import numpy as np
import orjson

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.experiment.schema import references_in
from nnref.experiment.sources import SOURCES, copy_of
from nnref.logbook.pages import (
    DEVICES,
    FORMAT,
    MOVED,
    Page,
    SweepPage,
    digest,
    digest_of,
    numbered,
    page_at,
    probes_path,
)
from nnref.training.processes import LIBRARIES


def open_alone(path: Path, new: bool) -> IO[bytes]:
    """Open a page to write on it, as the only one that does; its folder is made.

    Each write goes to the end of the file, whoever else has appended a remark meanwhile.

    Raises:
        FileExistsError: where a new page is there already.
        UserError: where another process is writing the page, or the folder cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if new else 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
    except FileExistsError:
        raise
    except OSError as error:
        raise UserError(
            f"{path}: {(error.strerror or 'cannot be written').lower()}; "
            "choose another folder with --logbook, or none with --no-logbook"
        ) from None
    for _ in range(10):  # a remark looks for a lock, and has one for an instant
        with suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return stream
        time.sleep(0.02)
    stream.close()
    raise UserError(f"{path}: another process is writing this page")


Kind = TypeVar("Kind", Page, SweepPage)


class PageWriter(Generic[Kind]):
    """A page being written, by this process alone. Lines go to disk with every call."""

    def __init__(
        self,
        page_of: Callable[[Path], Kind | None],
        place: Path,
        title: str,
        identity: str,
        experiment: Experiment,
        facts: Mapping[str, str],
        again: bool,
    ):
        """Open a new page, or go on with the last one where it was cut short.

        Args:
            page_of: reads a page of this kind; None where a file is none, as an empty one.
            place: path of the first such page, without its ending; later ones add a number to it.
            title: the first line below the experiment.
            identity: of the run or the sweep.
            experiment: frozen on the page.
            facts: the lines below the head. Whatever may decide a loss besides the experiment is
                among them: a page is continued only where all of them are still the same.
            again: begin a new page in any case.

        Raises:
            UserError: where another process is writing the page, or the folder cannot be written.
        """
        self.conditions = dict(facts)
        paths = numbered(place.parent, place.name)
        pages = [] if again else [page for path in paths if (page := page_of(path)) is not None]
        # What stood on the page before, where a run goes on.
        self.written = pages[-1] if pages and pages[-1].goes_on_with(facts) else None
        if self.written is None:
            self.path, self.stream = new_page(place)
            keep_sources(experiment, place.parent)
            head = f"{experiment.to_json()}// {title}\n"
            head += fact_lines({"identity": identity, "started": now(), **facts})
        else:
            self.path = self.written.path
            self.stream = open_alone(self.path, new=False)
            head = f"{self.written.before_a_line}// continued: {now()}\n"
            if self.written.elsewhere(facts):
                head += fact_lines({MOVED: f"to {facts.get(DEVICES, '1')} device(s)"})
        try:
            self.write(head)
        except OSError:
            self.stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def write(self, text: str) -> None:
        """Append text to the file; most of it, mostly all, in one call of the system."""
        rest = memoryview(text.encode())
        while rest:
            rest = rest[self.stream.write(rest) :]

    def facts(self, facts: Mapping[str, str]) -> None:
        """Append a line for each fact."""
        self.write(fact_lines(facts))

    def conclude(self, facts: Mapping[str, str]) -> None:
        """Append the last facts, and the digest of the whole page: a later change is noticed."""
        self.facts(facts)
        self.facts({"sha256": digest(self.path.read_bytes())})


def fact_lines(facts: Mapping[str, str]) -> str:
    """Facts as a page has them."""
    return "".join(f"// {key}: {value}\n" for key, value in facts.items())


def new_page(place: Path) -> tuple[Path, IO[bytes]]:
    """The next page of its number, opened; another process may take a number meanwhile."""
    number = len(numbered(place.parent, place.name))
    while True:
        number += 1
        path = place.with_name(f"{place.name}{f'-{number}' if number > 1 else ''}.json")
        try:
            return path, open_alone(path, new=True)
        except FileExistsError:
            continue


class Writer(PageWriter[Page]):
    """The page of a run being written, for one seed."""

    def __init__(
        self,
        folder: Path,
        name: str,
        experiment: Experiment,
        seed: int,
        facts: Mapping[str, str],
        again: bool = False,
    ):
        """Open a new page, or go on with the last one, as `PageWriter` does."""
        identity, title = experiment.identity, f"page {FORMAT} of {name}"
        frozen = experiment.model_copy(update={"seeds": (seed,)})
        place = folder / f"{identity}-seed{seed}"
        super().__init__(page_at, place, title, identity, frozen, facts, again)
        self.columns: list[str] = list(self.written.history) if self.written else []
        self.layers: dict[str, str] = {}  # the digest of their measures, a fact at the end

    def rows(self, first: int, history: dict[str, np.ndarray]) -> None:
        """Append the lines of the epochs from `first` on; what the page already has is compared.

        The history maps a measure to its values, (epochs,), NaN where there is none. Lines that may
        have been computed on another number of devices, and so rounded otherwise, stay as they are.

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
            equal = np.array_equal(same, table[: len(same)], equal_nan=True)
            if not equal and not self.written.elsewhere(self.conditions):
                raise UserError(
                    f"{self.path}: the epochs written before the run was cut short come out "
                    "different now; run it anew with --again"
                )
            table, first = table[known:], first + known
        lines = [f"// {epoch} {row}\n" for epoch, row in enumerate(in_decimals(table), first)]
        self.write("".join(lines))

    def conclude(self, facts: Mapping[str, str]) -> None:
        """Append the last facts, with the digests of the measures of the layers and of the page."""
        super().conclude(self.layers | dict(facts))

    def probes(self, table: np.ndarray) -> None:
        """Keep the measures of the layers beside the page; a table replaces one of fewer rows."""
        path = probes_path(self.path)
        half = path.with_suffix(".half")
        with half.open("wb") as stream:
            np.save(stream, table, allow_pickle=False)
        half.replace(path)
        self.layers = {"layers": digest_of(table)}


def keep_sources(experiment: Experiment, folder: Path) -> None:
    """Copy the files that an experiment names into a folder beside its page, each once."""
    for reference in references_in(experiment):
        if reference.digest:
            path = copy_of(reference.name, reference.digest, folder)
            path.parent.mkdir(exist_ok=True)
            path.write_text(SOURCES[reference.digest].text, encoding="utf-8")


def in_decimals(table: np.ndarray) -> list[str]:
    """Rows of float32 with the fewest digits that give the same numbers back, - for NaN."""
    if np.isinf(table).any():  # JSON has no word for it
        return [" ".join(map(str, row)).replace("nan", "-") for row in table]
    table = np.ascontiguousarray(table, np.float32)
    rows = orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY).decode()[2:-2]
    return rows.replace("null", "-").replace("],[", "\n").replace(",", " ").split("\n")


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


def machine_facts() -> dict[str, str]:
    """What besides the experiment may decide a loss: versions, machine, code."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was removed meanwhile
        folder = ""
    return dict(machine_facts_in(folder))


@cache
def machine_facts_in(folder: str) -> Mapping[str, str]:
    """The same, of a command that runs in this folder; a notebook may go to another one."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return {
        "versions": f"nnref {version('nnref')}, python {platform.python_version()}, {libraries}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": ", ".join(sorted({f"{d.platform} {d.device_kind}" for d in jax.devices()})),
        "commit": git_commit(folder),
    }


def git_commit(folder: str) -> str:
    """The commit of a folder, with "+" where files differ from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
            capture_output=True,
            cwd=folder,
            text=True,
            timeout=60,  # a busy machine takes long, and without its commit a page does not go on
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    return described.stdout.strip() or "none"
