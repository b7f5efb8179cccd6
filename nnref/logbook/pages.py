"""Pages: one for every run or sweep, an experiment file whose comments say what came of it.

A page `logbook/<name>/<identity>-seed<k>.json` is the complete frozen experiment, followed by
comment lines: where and when it ran, one line of measures an epoch, the verdict, remarks. A page
only grows; no line is ever rewritten.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from nnref.errors import UserError, printable

if TYPE_CHECKING:
    from nnref.experiment.experiment import Experiment

FORMAT = 1
DEVICES = "devices"  # the fact on how many a run began, where it was on more than one
MOVED = "moved"  # the fact that it went on upon another number of them
TORN = " (torn)"
# What NumPy raises for files of arrays that are missing, damaged or none.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    SyntaxError,
    MemoryError,
    BadZipFile,
    zlib.error,
)
HEAD = re.compile(r"^// (sweep )?page (\d+) of (.+)$", re.MULTILINE)
SEAL = re.compile(r"^// sha256: ([0-9a-f]{64})$", re.MULTILINE)  # of all that stands above it
# Of a folder beneath the logbook. The stem of "...json" is ".." up to Python 3.13, then all of it.
NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f]|^\.?$|^\.\.")


@dataclass(frozen=True)
class WrittenPage:
    """What every page says, that of a run or of a sweep.

    `facts` are the lines `// key: value`: started, device, data, ..., verdict.
    """

    path: Path
    name: str
    text: str = field(repr=False)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end: the verdict is the last thing written."""
        return "verdict" in self.facts

    def goes_on_with(self, facts: Mapping[str, str]) -> bool:
        """Whether the run was cut short where the same facts would give the same losses.

        On another number of devices they would but for their last digits: a run goes on there, too.
        """
        decisive = {name: fact for name, fact in facts.items() if name != DEVICES}
        return not self.complete and decisive.items() <= self.facts.items()

    def elsewhere(self, facts: Mapping[str, str]) -> bool:
        """Whether some of the run was not computed on as many devices as the facts say."""
        same = self.facts.get(DEVICES, "1") == facts.get(DEVICES, "1")
        return MOVED in self.facts or not same

    @property
    def frozen(self) -> str:
        """The text of the experiment: all that stands above the head."""
        head = HEAD.search(self.text)
        return self.text[: head.start()] if head else self.text

    @property
    def before_a_line(self) -> str:
        """What must be written before another line: it marks a torn last line as torn."""
        return "" if self.text.endswith("\n") else f"{TORN}\n"

    @property
    def notes(self) -> list[str]:
        """Remarks that were added later, each with its date."""
        return [*map(printable, re.findall(r"^// note: (.*)$", self.text, re.MULTILINE))]


@dataclass(frozen=True)
class Page(WrittenPage):
    """The page of a run.

    `history` maps a measure to its values, (epochs + 1,), NaN where nothing was measured.
    """

    history: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def experiment(self) -> "Experiment":
        """The frozen experiment."""
        from nnref.experiment.experiment import parse
        from nnref.experiment.sources import looking_in

        with looking_in(self.path.parent):
            return parse(self.frozen)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.experiment.seeds[0]

    @property
    def together(self) -> tuple[int, ...]:
        """The seeds that were trained in one program with this one."""
        return tuple(map(int, self.facts["together"].split()))

    @property
    def epochs(self) -> int:
        """The last epoch with a line of its own; -1 where there is none."""
        return len(next(iter(self.history.values()), ())) - 1


@dataclass(frozen=True)
class SweepPage(WrittenPage):
    """The page of a sweep; the losses of its epochs are in a file beside it.

    `variants` has for each variant its identity, settings, losses (medians over seeds) and ending.
    """

    variants: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def loss(self) -> str:
        """The loss that the variants have a figure of; the validation loss where there is none."""
        return "train_loss" if "train_loss" in (self.variants or [{}])[0] else "valid_loss"


# --- reading ------------------------------------------------------------------------------------


def page_in(path: Path, text: str) -> Page | SweepPage | None:
    """The page in the text of a file, without a torn last line; None where it is no page.

    Raises:
        UserError: for a page of a newer format, or one that was changed after it was written.
    """
    head = HEAD.search(text)
    if head is None:
        return None
    of_sweep, written_format, name = head.groups()
    refuse_name(path, name)
    if int(written_format) > FORMAT:
        raise UserError(
            f"{path}: written by a newer nnref (format {written_format}, this one reads "
            f"{FORMAT}); upgrade"
        )
    seal = SEAL.search(text)
    if seal is not None and digest(text[: seal.start()].encode()) != seal[1]:
        raise UserError(
            f"{path}: changed after it was written; bring back what it was, or move it away and "
            "run the experiment again"
        )
    facts: dict[str, str] = {}
    columns: list[str] = []
    rows: list[list[float]] = []
    for line in text[: text.rfind("\n") + 1].splitlines():
        if not line.startswith("// ") or line.endswith(TORN):
            continue
        first, *cells = line[3:].split()
        if first == "epoch":
            columns = cells
        # Rows stand in order; a torn one is marked so when the run goes on, and comes again.
        elif first == str(len(rows)) and len(cells) == len(columns):
            rows.append([np.nan if cell == "-" else figure(path, cell) for cell in cells])
        elif ": " in line:
            key, _, value = line[3:].partition(": ")
            facts[key] = printable(value)
    if of_sweep:
        lines = [value for key, value in facts.items() if re.fullmatch(r"variant \d+", key)]
        try:
            return SweepPage(path, name, text, facts, [json.loads(line) for line in lines])
        except ValueError as error:
            raise UserError(f"{path}: a variant is damaged: {error}") from None
    table = np.array(rows, np.float32).reshape(len(rows), len(columns))
    return Page(path, name, text, facts, dict(zip(columns, table.T, strict=True)))


def figure(path: Path, cell: str) -> float:
    """A number of a page; a UserError where it is none."""
    try:
        return float(cell)
    except ValueError:
        raise UserError(f"{path}: damaged: {cell!r} is no number") from None


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def refuse_name(path: Path, name: str) -> None:
    """Refuse the name of an experiment that is none of a folder beneath the logbook.

    Raises:
        UserError: for one with a slash or a control character, and for no more than dots.
    """
    if NO_NAME.search(name):
        raise UserError(
            f"{path}: {name!r} is no name of an experiment; one has no slash, no line break, and "
            "no two dots at its beginning"
        )


def any_page_at(path: Path) -> Page | SweepPage | None:
    """The page in a file, or None where the file is something else, or missing."""
    try:
        return page_in(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def page_at(path: Path) -> Page | None:
    """The page of a run in a file, or None where the file is something else, or missing."""
    page = any_page_at(path)
    return page if isinstance(page, Page) else None


def sweep_page_at(path: Path) -> SweepPage | None:
    """The page of a sweep in a file, or None where the file is something else, or missing."""
    page = any_page_at(path)
    return page if isinstance(page, SweepPage) else None


def read_page(path: Path) -> Page:
    """The page of a run as it stands.

    Raises:
        UserError: for a file that is no such page, or of a newer format.
    """
    page = page_in(path, path.read_text(encoding="utf-8"))
    if not isinstance(page, Page):
        raise UserError(f"{path}: not a page of a logbook")
    return page


def read_sweep_page(path: Path) -> SweepPage:
    """The page of a sweep as it stands.

    Raises:
        UserError: for a file that is no such page, or of a newer format.
    """
    page = page_in(path, path.read_text(encoding="utf-8"))
    if not isinstance(page, SweepPage):
        raise UserError(f"{path}: not a page of a logbook")
    return page


def page_paths(folder: Path, identity: str, seed: int) -> list[Path]:
    """The pages of one run, oldest first."""
    return numbered(folder, f"{identity}-seed{seed}")


def numbered(folder: Path, stem: str) -> list[Path]:
    """The files `stem.json`, `stem-2.json`, ... of a folder, oldest first."""
    pattern = re.compile(rf"{stem}(?:-(\d+))?\.json")
    matches = [(pattern.fullmatch(path.name), path) for path in folder.glob(f"{stem}*")]
    return [path for _, path in sorted((int(m[1] or 1), path) for m, path in matches if m)]


# --- measures of the layers ---------------------------------------------------------------------


def probes_path(page: Path) -> Path:
    """Where the measures of the layers lie, beside their page."""
    return page.with_suffix(".npy")


def probes_of(page: Page) -> dict[str, np.ndarray] | None:
    """The measures of each layer during the run of a page; None where there are none.

    Returns:
        `step` (n,), the steps taken before each measurement, `epoch` (n,), the same in epochs,
        `layers` (L,), their names, and for each measure (n, L) float32, NaN where it has no
        meaning.
    """
    table = probe_table(page.path)
    if table is None or page.facts.get("layers", digest_of(table)) != digest_of(table):
        return None
    layers = [name for name in table.dtype.names or () if name not in ("step", "epoch")]
    measures = table.dtype[layers[0]].names or ()
    values = {name: np.stack([table[layer][name] for layer in layers], 1) for name in measures}
    return {"step": table["step"], "epoch": table["epoch"], "layers": np.array(layers)} | values


def probe_table(page: Path) -> np.ndarray | None:
    """The measures of the layers as `probes.table` made them; None where there are none."""
    try:
        table = np.load(probes_path(page), allow_pickle=False)
    except UNREADABLE:
        return None  # not measured, or not written by us
    return table if {"step", "epoch"} < set(table.dtype.names or ()) else None


def digest_of(table: np.ndarray) -> str:
    """SHA-256 of a table of measures."""
    return digest(np.ascontiguousarray(table).tobytes())
