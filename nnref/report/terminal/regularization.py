"""Regularization piece by piece, as a table of the terminal and as plain values."""

from typing import Any

from rich.console import Console
from rich.text import Text

from nnref.report.plain import plain
from nnref.report.terminal.ablation import interval, three_digits
from nnref.report.terminal.logbook import plain_table
from nnref.studies.regularize import OFF, Regularized, in_words

NOTE = (
    "difference: with the piece less without it, over pairs of one seed, interquartile mean and an "
    "interval that holds for all rows together; loss left: last over first training loss"
)


def columns(done: Regularized) -> list[str]:
    """The heads of the columns."""
    return ["piece", done.metric, "difference", "p", "loss left"]


def rows(done: Regularized) -> list[list[str]]:
    """A row for everything off, and one for each piece."""
    off = [OFF, interval(done.off.middle), "", "", f"{done.falls:.1%}"]
    return [off] + [
        [
            in_words(piece),
            interval(piece.result.middle),
            interval(piece.difference),
            three_digits(piece.p),
            f"{piece.falls:.1%}" if piece.falls < float("inf") else "diverged",
        ]
        for piece in done.pieces
    ]


def show_regularized(done: Regularized, console: Console) -> None:
    """The table, what was refused, and what can be concluded."""
    first, *others = columns(done)
    table = plain_table(first, *others, right=others, wraps=[first])
    for row in rows(done):
        table.add_row(*row)
    title = Text.assemble((done.name, "bold"), f"  {len(done.seeds)} paired seeds\n")
    console.print(title, highlight=False)
    console.print(table, highlight=False)
    console.print(f"{NOTE}\n", style="dim", highlight=False, markup=False)
    for name, why in done.refused.items():
        console.print(f"note: {name} was left out: {why}", highlight=False, markup=False)
    for sentence in done.sentences:
        console.print(sentence, style="bold", highlight=False, markup=False)


def regularized_as_json(done: Regularized) -> dict[str, Any]:
    """The result as plain values: "inf" where something is infinite, which JSON lacks."""
    pieces = [
        {
            "piece": piece.name,
            "value": piece.value,
            "scores": piece.result.scores,
            "difference": piece.difference,
            "p": piece.p,
            "loss_left": piece.falls,
            "pays": done.better(piece),
        }
        for piece in done.pieces
    ]
    content = {
        "name": done.name,
        "metric": done.metric,
        "seeds": done.seeds,
        "off": {"scores": done.off.scores, "loss_left": done.falls},
        "pieces": pieces,
        "refused": dict(done.refused),
        "conclusions": done.sentences,
    }
    return plain(content, infinite=str)
