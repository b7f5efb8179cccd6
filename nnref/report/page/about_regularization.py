"""The part of a report about regularization piece by piece: what each one does to the loss."""

from nnref.report.page.blocks import Headline, Panel, Pictures, Report, Section, Table, Words
from nnref.report.page.panels import intervals_panel
from nnref.report.page.subjects import in_words
from nnref.report.terminal.regularization import NOTE, columns, rows
from nnref.studies.regularize import Regularized


def report_of_regularization(done: Regularized) -> Report:
    """The verdict, a picture of the differences, and a row for each piece."""
    facts = [
        ("tried", f"{len(done.pieces)} settings"),
        ("judged by", f"{done.metric} on {len(done.seeds)} paired seeds"),
    ]
    tone = "plain" if done.learns else "bad"
    title = f"{done.name}, piece by piece"
    head = Headline(tone, "regularized", title, " ".join(done.sentences), facts=facts)
    table = Table("each piece, alone", columns(done), rows(done), note=NOTE)
    sections = [Section("pieces", "Pieces", [Pictures([differences(done)]), table])]
    if done.refused:
        refused = [Words(f"{name}: {why}") for name, why in done.refused.items()]
        sections.append(Section("refused", "What this experiment cannot have", refused))
    return Report(title, [head], sections)


def differences(done: Regularized) -> Panel:
    """The difference that each piece makes, with its interval."""
    title = f"{in_words(done.metric)} with the piece, minus that without it"
    names = [piece.name for piece in done.pieces]
    sure = [piece.differs for piece in done.pieces]
    return intervals_panel(title, names, [p.difference for p in done.pieces], sure=sure)
