"""The columns of a table and what they are used for, on the terminal."""

from rich.console import Console

from nnref.data import Dataset
from nnref.report.terminal.logbook import plain_table

MOST = 40  # columns that have a line each


def show_columns(dataset: Dataset, console: Console) -> None:
    """A line for each column, and what was decided about target and rows; nothing where none is."""
    if dataset.table:
        table = plain_table(
            "column", "type", "missing", "different", "use", wraps=["column", "use"]
        )
        for use in dataset.table[:MOST]:
            table.add_row(use.column, use.type, str(use.missing or ""), use.unique, use.use)
        console.print(table, highlight=False)
        if dataset.table[MOST:]:
            console.print(f"and {len(dataset.table) - MOST} columns more", highlight=False)
    for note in dataset.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if dataset.notes:
        console.print()
