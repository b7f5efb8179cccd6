"""The columns of a table and what a look at data has found, on the terminal and as values."""

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from nnref.data import Dataset
from nnref.report.terminal.logbook import plain_table

if TYPE_CHECKING:  # a run shows its columns, and has no use for the checks, nor for the diagnosis
    from nnref.checks.data import Doubt, Look

MOST = 40  # columns that have a line each


def show_columns(dataset: Dataset, console: Console) -> None:
    """A line for each column, and what was decided about target and rows; nothing where none is."""
    if dataset.table:
        heads = ("column", "type", "missing", "different", "use")
        table = plain_table(*heads, wraps=["column", "use"])
        for use in dataset.table[:MOST]:
            table.add_row(use.column, use.type, str(use.missing or ""), use.unique, use.use)
        console.print(table, highlight=False)
        if dataset.table[MOST:]:
            console.print(f"and {len(dataset.table) - MOST} columns more", highlight=False)
    for note in dataset.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if dataset.notes:
        console.print()


def target_in_figures(dataset: Dataset) -> list[tuple[str, str]]:
    """How the targets of the training rows are distributed, as names and figures."""
    y = dataset.train.y
    if dataset.classes:
        counts = np.bincount(y.ravel(), minlength=len(dataset.classes))
        order = np.argsort(-counts, kind="stable")[:MOST]
        return [(dataset.classes[k], f"{counts[k]} ({counts[k] / y.size:.1%})") for k in order]
    values = y.reshape(len(y), -1).astype(np.float64)
    if dataset.target_scaling is not None:
        mean, deviation = dataset.target_scaling
        values = values * deviation + mean
    names = ("smallest", "quarter", "median", "three quarters", "largest")
    return [
        (n, f"{v:.4g}") for n, v in zip(names, np.quantile(values, np.arange(5) / 4), strict=True)
    ]


def with_rows(doubt: "Doubt") -> str:
    """What was seen, with the first rows of it."""
    rows = f" (rows {', '.join(map(str, doubt.rows))})" if doubt.rows else ""
    return doubt.sentence + rows


def show_look(seen: "Look", console: Console) -> None:
    """Columns, target, the three numbers of each split, and every doubt with its remedy."""
    show_columns(seen.dataset, console)
    figures = ", ".join(f"{name} {figure}" for name, figure in target_in_figures(seen.dataset))
    console.print(f"target: {figures}\n", highlight=False, markup=False, soft_wrap=True)
    table = plain_table("skill of simple models", "inside train", "from train", "inside", right=[])
    for name, numbers in seen.numbers.items():
        if numbers is not None:
            three = (numbers.inside, numbers.across, numbers.within)
            table.add_row(name, *(f"{value:z.2f}" for value in three))
    if table.row_count:
        console.print(table, highlight=False)
        console.print()
    for warning in seen.warnings:
        console.print(f"- {warning}", highlight=False, markup=False, soft_wrap=True)
    for doubt in seen.doubts:
        line = f"- {with_rows(doubt)} [{doubt.what}]\n  {doubt.remedy}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not seen.warnings and not seen.doubts:
        console.print("nothing is doubtful", highlight=False)


def look_as_json(seen: "Look") -> dict[str, Any]:
    """What was found as plain values."""
    return {
        "columns": [use._asdict() for use in seen.dataset.table],
        "notes": list(seen.dataset.notes),
        "target": dict(target_in_figures(seen.dataset)),
        "skill": {
            name: numbers and dict(zip(("inside", "across", "within"), numbers[:3], strict=True))
            for name, numbers in seen.numbers.items()
        },
        "warnings": list(seen.warnings),
        "doubts": [doubt._asdict() for doubt in seen.doubts],
    }
