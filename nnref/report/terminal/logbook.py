"""The logbook on the terminal: the list, nearest attempts, a difference, a tree; tables in text."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from nnref.logbook.index import (
    Attempt,
    Branch,
    Entry,
    KeyChange,
    attempts,
    changes,
    number,
    settings_of,
    shown,
)
from nnref.logbook.pages import page_at, read_page

LEVELS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60  # bars of a curve


def show_log(entries: Sequence[Entry], console: Console) -> None:
    """A row for each run; a sweep has one for all, with its variants × seeds."""
    columns = ("name", "identity", "seed", "started", "epochs", "best", "final", "how it ended")
    table = plain_table(*columns, right={"seed", "epochs", "best", "final"})
    for entry in entries:
        figures = number(entry.best), number(entry.final.get(entry.loss))
        ended = entry.outcome if entry.ending or not entry.verdict else entry.verdict
        seed = f"{entry.variants}×{entry.seeds}" if entry.variants else entry.seed
        row = [entry.name, entry.identity, seed, entry.started[:16], entry.epochs, *figures]
        table.add_row(*map(str, row), ended)
        for note in entry.notes:
            table.add_row("", "", "", *[""] * 4, f"note: {note}")
    console.print(table)


def nearest_attempts(pairs: Iterable[tuple[list[KeyChange], Attempt]]) -> str:
    """The earlier attempts that are nearly the same, a line for each, with what differs."""
    lines = []
    for differences, attempt in pairs:
        before = ", ".join(f"{change.key} {shown(change.before)}" for change in differences)
        after = ", ".join(shown(change.after) for change in differences)
        lines.append(f"  {before} (here {after}) → {attempt.outcome}")
    return "\n".join(["tried before, nearly the same:", *lines]) if lines else ""


class Side(NamedTuple):
    """One of two experiments that are compared, with its runs if there are any."""

    label: str
    settings: dict[str, Any]
    entries: Sequence[Entry] = ()
    histories: Sequence[dict[str, np.ndarray]] = ()


def side_of(
    word: str, logbook: Path, entries: Sequence[Entry], file_of: Callable[[str], Path]
) -> Side:
    """One of two experiments to compare, by its page, its file, its name or its identity.

    Raises:
        UserError: by `file_of`, which finds the file of an experiment by its path or name.
    """
    path = Path(word)
    page = page_at(path)
    if page is not None:
        own = [e for e in entries if (logbook / e.page).resolve() == path.resolve()]
        return Side(word, settings_of(page.frozen), own, [page.history])
    runs = [e for e in entries if word == e.name or e.identity.startswith(word)]
    if path.exists() or not runs:
        # Only here is JAX needed: importing it takes ten times as long as listing a logbook.
        from nnref.experiment.experiment import read

        experiment = read(file_of(word))
        settings = settings_of(experiment.to_json())
        runs = [e for e in entries if e.identity == experiment.identity]
    else:
        settings = runs[-1].settings
    newest = attempts(runs)[-1].entries if runs else ()
    if not newest:
        return Side(word, settings)
    histories = [read_page(logbook / entry.page).history for entry in newest]
    first = newest[0]
    label = word if first.identity == word else f"{word} {first.identity}"
    return Side(label, first.settings, newest, histories)


def show_difference(a: Side, b: Side, console: Console) -> None:
    """What changed from one experiment to the other, and what it did to losses and curves."""
    for letter, side in (("A", a), ("B", b)):
        seeds = len(side.entries)
        runs = f"{seeds} run{'s' * (seeds > 1)}" if side.entries else "never run"
        console.print(Text.assemble((letter, "bold"), f"  {side.label}, {runs}"))
    console.print()
    differences = changes(a.settings, b.settings)
    if not differences:
        console.print("the same settings")
    else:
        table = plain_table("changed", "A", "B")
        for change in differences:
            table.add_row(change.key, shown(change.before), shown(change.after))
        console.print(table)
    if not (a.entries and b.entries):
        return
    console.print()
    table = plain_table("median of the runs", "A", "B", "B / A", right={"A", "B", "B / A"})
    for name in [n for n in a.entries[0].final if n in b.entries[0].final]:
        table.add_row(
            f"{name} in the end", *compared([e.final[name] for e in s.entries] for s in (a, b))
        )
    if a.entries[0].loss == b.entries[0].loss:
        bests = ([e.best for e in side.entries] for side in (a, b))
        table.add_row(f"{a.entries[0].loss} at best", *compared(bests))
    table.add_row("epochs", *compared([float(e.epochs) for e in side.entries] for side in (a, b)))
    console.print(table)
    console.print()
    for name in ("train_loss", "valid_loss"):
        curves = [median_curve(side.histories, name) for side in (a, b)]
        if all(len(curve) for curve in curves):
            both = np.concatenate(curves)
            for letter, curve in zip("AB", curves, strict=True):
                line = sparkline(curve, CURVE_WIDTH, (both.min(), both.max()))
                console.print(f"{name} {letter} {line} {curve[-1]:.3g}", highlight=False)


def compared(sides: Iterable[Sequence[float | None]]) -> tuple[str, str, str]:
    """Two medians and their quotient; a run without a finite value counts as infinite."""
    a, b = (float(np.median([np.inf if v is None else v for v in side])) for side in sides)
    return number(a), number(b), f"{b / a:.3g}" if a and np.isfinite([a, b]).all() else "-"


def median_curve(histories: Sequence[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """The median over runs of a measure, where it was measured and is positive."""
    curves = [history[name] for history in histories if name in history]
    length = min(map(len, curves), default=0)
    median = np.median([curve[:length] for curve in curves], axis=0) if curves else np.empty(0)
    return median[np.isfinite(median) & (median > 0)]


def sparkline(values: np.ndarray, width: int, ends: tuple[float, float] | None = None) -> str:
    """A curve as a line of small bars, the newest at the right; their heights are logarithmic.

    Args:
        values: (n,); what is not finite or not positive is left out.
        width: bars at most; each is the median of its share of the values.
        ends: value of the lowest and of the highest bar, so that two lines can be compared;
            otherwise the smallest and the largest median.
    """
    drawn = np.log10(values[np.isfinite(values) & (values > 0)])
    if not len(drawn) or width < 1:
        return ""
    heights = np.array([np.median(part) for part in np.array_split(drawn, min(width, len(drawn)))])
    low, high = (heights.min(), heights.max()) if ends is None else np.log10(ends)
    levels = (heights - low) / ((high - low) or 1) * (len(LEVELS) - 1)
    return "".join(LEVELS[round(level)] for level in levels.tolist())


def tree_of_changes(root: Branch) -> Tree:
    """Attempts as a tree of changes, the best loss of each, the best of all in bold."""
    best = min((a.best for a in below(root) if a.best is not None), default=None)

    def label(node: Branch) -> Text:
        attempt = node.attempt
        what = ", ".join(map(str, node.changes)) or attempt.entries[0].name
        is_best = attempt.best == best is not None
        return Text.assemble(
            f"{what}  ",
            (attempt.entries[0].identity, "dim"),
            f"  {attempt.outcome}{'  ← best' if is_best else ''}",
            style="bold" if is_best else "",
        )

    def add(node: Branch, tree: Tree) -> Tree:
        for child in node.children:
            add(child, tree.add(label(child)))
        return tree

    return add(root, Tree(label(root), highlight=False))


def below(node: Branch) -> Iterable[Attempt]:
    """All attempts of a tree."""
    yield node.attempt
    for child in node.children:
        yield from below(child)


def plain_table(
    *columns: str, right: Iterable[str] = (), wraps: Iterable[str] = ("how it ended",)
) -> Table:
    """A table without lines; on a narrow terminal some columns wrap, so that none is cut."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        align = "right" if column in set(right) else "left"
        table.add_column(column, justify=align, no_wrap=column not in set(wraps))  # type: ignore
    return table
