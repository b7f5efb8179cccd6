"""Pages: one for every run, an experiment file whose comments tell what came of it.

A page `logbook/<name>/<identity>-seed<k>.json` is the complete frozen experiment, followed by
comment lines: where and when it ran, one line of measures an epoch, the verdict, remarks. A page
only grows; no line is ever rewritten.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnref.errors import UserError

if TYPE_CHECKING:
    from nnref.experiment.experiment import Experiment

FORMAT = 1
TORN = " (torn)"
SWEEP = re.compile(r"^// sweep page (\d+) of (.+)$", re.MULTILINE)
HEAD = re.compile(r"^// page (\d+) of (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """What stands on a page.

    `facts` are the lines `// key: value`: started, device, data, ..., verdict; `history` maps a
    measure to its values, (epochs + 1,), NaN where nothing was measured.
    """

    path: Path
    name: str
    text: str = field(repr=False)
    facts: dict[str, str] = field(default_factory=dict)
    history: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def experiment(self) -> "Experiment":
        """The frozen experiment."""
        from nnref.experiment.experiment import parse

        return parse(self.text)

    @property
    def together(self) -> tuple[int, ...]:
        """The seeds that were trained in one program with this one."""
        return tuple(map(int, self.facts["together"].split()))

    @property
    def complete(self) -> bool:
        """Whether the run came to its end: the verdict is the last thing written."""
        return "verdict" in self.facts

    def goes_on_with(self, facts: dict[str, str]) -> bool:
        """Whether the run was cut short where the same facts would give the same losses."""
        return not self.complete and facts.items() <= self.facts.items()

    @property
    def before_a_line(self) -> str:
        """What must be written before another line: it marks a torn last one as such."""
        return "" if self.text.endswith("\n") else f"{TORN}\n"

    @property
    def notes(self) -> list[str]:
        """Remarks that were added later, each with its date."""
        return re.findall(r"^// note: (.*)$", self.text, re.MULTILINE)

    @property
    def epochs(self) -> int:
        """The last epoch with a line of its own; -1 where there is none."""
        return len(next(iter(self.history.values()), ())) - 1


def read_page(path: Path) -> Page:
    """A page as it stands; a torn last line is left out.

    Raises:
        UserError: for a file that is no page, or of a newer format.
    """
    text, name = text_and_name(path, HEAD)
    facts: dict[str, str] = {}
    columns: list[str] = []
    rows: list[list[float]] = []
    for line in text[: text.rfind("\n") + 1].splitlines():
        if not line.startswith("// ") or line.endswith(TORN):
            continue
        first, _, rest = line[3:].partition(" ")
        cells = rest.split()
        if first == "epoch":
            columns = cells
        # Rows stand in order; a torn one is marked so when the run goes on, and comes again.
        elif first == str(len(rows)) and len(cells) == len(columns):
            rows.append([np.nan if cell == "-" else float(cell) for cell in cells])
        elif first.endswith(":"):
            facts[first[:-1]] = rest
    table = np.array(rows, np.float32).reshape(len(rows), len(columns))
    return Page(path, name, text, facts, dict(zip(columns, table.T, strict=True)))


def text_and_name(path: Path, head: re.Pattern[str]) -> tuple[str, str]:
    """The text of a page of some kind, and the name that its head says.

    Raises:
        UserError: for a file that is no such page, or of a newer format.
    """
    text = path.read_text(encoding="utf-8")
    found = head.search(text)
    if found is None:
        raise UserError(f"{path}: not a page of a logbook")
    if int(found[1]) > FORMAT:
        raise UserError(
            f"{path}: written by a newer nnref (format {found[1]}, this one reads {FORMAT}); "
            "upgrade"
        )
    return text, found[2]


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
    if table is None:
        return None
    layers = [name for name in table.dtype.names or () if name not in ("step", "epoch")]
    measures = table.dtype[layers[0]].names or ()
    told = {name: np.stack([table[layer][name] for layer in layers], 1) for name in measures}
    return {"step": table["step"], "epoch": table["epoch"], "layers": np.array(layers)} | told


def probe_table(page: Path) -> np.ndarray | None:
    """The measures of the layers as `probes.table` made them; None where there are none."""
    try:
        table = np.load(probes_path(page), allow_pickle=False)
    except (OSError, ValueError):
        return None  # not measured, or not written by us
    return table if {"step", "epoch"} < set(table.dtype.names or ()) else None


def page_at(path: Path) -> Page | None:
    """The page in a file, or None where the file is something else, or missing."""
    try:
        return read_page(path) if HEAD.search(path.read_text(encoding="utf-8")) else None
    except (OSError, UnicodeDecodeError):
        return None


def page_paths(folder: Path, identity: str, seed: int) -> list[Path]:
    """The pages of one run, oldest first."""
    return numbered(folder, f"{identity}-seed{seed}")


# --- sweeps -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SweepPage:
    """What stands on the page of a sweep; the losses of its epochs are in a file beside it.

    `variants` has for each its identity, settings, losses (medians over seeds) and ending.
    """

    path: Path
    name: str
    text: str = field(repr=False)
    facts: dict[str, str] = field(default_factory=dict)
    variants: list[dict[str, Any]] = field(default_factory=list, repr=False)

    # What a page of any kind says of itself.
    complete = Page.complete
    goes_on_with = Page.goes_on_with
    before_a_line = Page.before_a_line
    notes = Page.notes


def read_sweep_page(path: Path) -> SweepPage:
    """The page of a sweep as it stands; a torn last line is left out.

    Raises:
        UserError: for a file that is no such page, or of a newer format.
    """
    text, name = text_and_name(path, SWEEP)
    facts: dict[str, str] = {}
    for line in text[: text.rfind("\n") + 1].splitlines():
        if line.startswith("// ") and ": " in line and not line.endswith(TORN):
            key, _, value = line[3:].partition(": ")
            facts[key] = value
    lines = [value for key, value in facts.items() if re.fullmatch(r"variant \d+", key)]
    return SweepPage(path, name, text, facts, [json.loads(line) for line in lines])


def sweep_page_at(path: Path) -> SweepPage | None:
    """The page of a sweep in a file, or None where the file is something else, or missing."""
    try:
        return read_sweep_page(path) if SWEEP.search(path.read_text(encoding="utf-8")) else None
    except (OSError, UnicodeDecodeError):
        return None


def sweep_paths(folder: Path, identity: str) -> list[Path]:
    """The pages of one sweep, oldest first."""
    return numbered(folder, f"sweep-{identity}")


def numbered(folder: Path, stem: str) -> list[Path]:
    pattern = re.compile(rf"{stem}(?:-(\d+))?\.json")
    matches = [(pattern.fullmatch(path.name), path) for path in folder.glob(f"{stem}*")]
    return [path for _, path in sorted((int(m[1] or 1), path) for m, path in matches if m)]
