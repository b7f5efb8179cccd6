"""The logbook on the terminal: lists, nearest attempts, differences, trees."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from nnref.logbook.index import Attempt, Change, Entry, Node, changes, number, shown

LEVELS = "▁▂▃▄▅▆▇█"


def listed(there: Sequence[Entry], console: Console) -> None:
    """A row for each run; a sweep has one for all, with its variants × seeds."""
    columns = ("name", "identity", "seed", "started", "epochs", "best", "final", "how it ended")
    table = plain_table(*columns, right={"seed", "epochs", "best", "final"})
    for entry in there:
        figures = number(entry.best), number(entry.final.get(entry.loss))
        ended = entry.outcome if entry.ending or not entry.verdict else entry.verdict
        seed = f"{entry.variants}×{entry.seeds}" if entry.variants else entry.seed
        row = [entry.name, entry.identity, seed, entry.started[:16], entry.epochs, *figures]
        table.add_row(*map(str, row), ended)
        for note in entry.notes:
            table.add_row("", "", "", *[""] * 4, f"note: {note}")
    console.print(table)


def nearest_attempts(found: Iterable[tuple[list[Change], Attempt]]) -> str:
    """What was tried before that is nearly the same, a line for each."""
    lines = []
    for differ, attempt in found:
        there = ", ".join(f"{change.key} {shown(change.before)}" for change in differ)
        here = ", ".join(shown(change.after) for change in differ)
        lines.append(f"  {there} (here {here}) → {attempt.outcome}")
    return "\n".join(["tried before, nearly the same:", *lines]) if lines else ""


class Side(NamedTuple):
    """One of two experiments that are compared, with its runs if there are any."""

    label: str
    settings: dict[str, Any]
    entries: Sequence[Entry] = ()
    histories: Sequence[dict[str, np.ndarray]] = ()


def difference(a: Side, b: Side, console: Console) -> None:
    """What changed from one experiment to the other, and what it did to losses and curves."""
    for letter, side in (("A", a), ("B", b)):
        seeds = len(side.entries)
        runs = f"{seeds} run{'s' * (seeds > 1)}" if side.entries else "never run"
        console.print(f"[bold]{letter}[/bold]  {side.label}, {runs}", highlight=False)
    console.print()
    differ = changes(a.settings, b.settings)
    if not differ:
        console.print("the same settings")
    else:
        table = plain_table("changed", "A", "B")
        for change in differ:
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
            both = np.log10(np.concatenate(curves))
            for letter, curve in zip("AB", curves, strict=True):
                line = spark(np.log10(curve), both.min(), both.max())
                console.print(f"{name} {letter} {line} {curve[-1]:.3g}", highlight=False)


def compared(sides: Iterable[Sequence[float | None]]) -> tuple[str, str, str]:
    """Two medians and their quotient; a run without a finite value counts as infinite."""
    a, b = (float(np.median([np.inf if v is None else v for v in side])) for side in sides)
    return number(a), number(b), f"{b / a:.3g}" if a and np.isfinite([a, b]).all() else "-"


def median_curve(histories: Sequence[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """The median over runs of a measure, where it was measured and is positive."""
    there = [history[name] for history in histories if name in history]
    length = min(map(len, there), default=0)
    middle = np.median([values[:length] for values in there], axis=0) if there else np.empty(0)
    return middle[np.isfinite(middle) & (middle > 0)]


def spark(values: np.ndarray, low: float, high: float, width: int = 60) -> str:
    """A curve in one line of text; the same `low` and `high` make two of them comparable."""
    bins = np.array_split(values, min(width, len(values)))
    heights = (np.array([np.median(part) for part in bins]) - low) / ((high - low) or 1)
    return "".join(LEVELS[round(float(h) * (len(LEVELS) - 1))] for h in heights)


def grown(root: Node) -> Tree:
    """Attempts as a tree of changes, the best loss of each, the best of all in bold."""
    best = min((a.best for a in below(root) if a.best is not None), default=None)

    def label(node: Node) -> str:
        attempt = node.attempt
        what = ", ".join(map(str, node.changes)) or attempt.entries[0].name
        told = f"{what}  [dim]{attempt.entries[0].identity}[/dim]  {attempt.outcome}"
        return f"[bold]{told}  ← best[/bold]" if attempt.best == best is not None else told

    def add(node: Node, tree: Tree) -> Tree:
        for child in node.children:
            add(child, tree.add(label(child)))
        return tree

    return add(root, Tree(label(root), highlight=False))


def below(node: Node) -> Iterable[Attempt]:
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
