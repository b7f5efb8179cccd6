"""The part of a report about runs: headlines and sections, and its pictures as panels."""

from collections.abc import Sequence

import numpy as np

from nnref.logbook.index import changes, shown
from nnref.logbook.verdicts import Record
from nnref.report.page import about_networks
from nnref.report.page.blocks import (
    Block,
    Code,
    Heading,
    Headline,
    Report,
    Section,
    Table,
    Words,
    figure,
)
from nnref.report.page.curves import curves_section, rates_section
from nnref.report.page.subjects import (
    SPLITS,
    ExperimentPages,
    Network,
    in_words,
    machine_section,
    notes_section,
)
from nnref.studies.sweep_record import median_loss


def report_of(
    subjects: Sequence[ExperimentPages], networks: Sequence[Network], omissions: Sequence[str] = ()
) -> Report:
    """Everything that a page says about runs and their networks; `omissions` are in words."""
    one = len(subjects) == 1
    answers = about_networks.of_networks(subjects, networks, about_networks.answer_blocks)
    sections = [
        differences_section(subjects),
        figures_section(subjects, omissions),
        curves_section(subjects),
        rates_section(subjects, networks),
        about_networks.layers_section(subjects),
        about_networks.histograms_section(subjects, networks),
        Section("answers", "What the network answers", answers),
        experiment_section(subjects),
        notes_section("run", remarks(subjects)),
        machine_section([(subject.label, subject.pages) for subject in subjects]),
    ]
    title = subjects[0].label if one else f"{len(subjects)} experiments"
    names = {subject.name for subject in subjects}
    if not one and len(names) == 1:
        title = f"{names.pop()}: {title}"
    return Report(title, [headline(each) for each in subjects], [s for s in sections if s])


# --- in figures -----------------------------------------------------------------------------------


def headline(subject: ExperimentPages) -> Headline:
    """The verdict, and the figures that one asks for first."""
    tone, word, sentence = subject.outcome
    records, loss = subject.records, subject.loss
    facts = [("seeds" if len(subject.pages) > 1 else "seed", seeds_of(subject))]
    if records:
        of = ", median" if len(records) > 1 else ""
        kind = SPLITS[loss.removesuffix("_loss")]
        facts.append((f"{kind} loss in the end{of}", figure(median_loss(finals(records, loss)))))
        facts.append((f"lowest{of}", figure(median_loss(r.best(loss) for r in records))))
        facts.append((f"epochs{of}", f"{np.median([record.epochs for record in records]):g}"))
    facts.append(("started", subject.pages[0].facts.get("started", "–")[:16]))
    return Headline(tone, word, subject.label, sentence, subject.experiment.about, facts)


def seeds_of(subject: ExperimentPages) -> str:
    seeds = [page.seed for page in subject.pages]
    if len(seeds) > 3 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{len(seeds)}, {seeds[0]} to {seeds[-1]}"
    more = f" and {len(seeds) - 8} more" if len(seeds) > 8 else ""
    return ", ".join(map(str, seeds[:8])) + more


def finals(records: Sequence[Record], name: str) -> list[float]:
    """A measure of each run at its end; NaN where it was not measured."""
    return [r.final(name) if name in r.history or name == "epochs" else np.nan for r in records]


def figures_section(subjects: Sequence[ExperimentPages], omissions: Sequence[str]) -> Section:
    """How every run ended, in figures."""
    blocks: list[Block] = [Words(line) for line in omissions]
    for subject in subjects:
        if len(subjects) > 1:
            blocks.append(Heading(subject.label))
        names, loss = list(subject.history), subject.loss
        columns = ["run", *map(in_words, names), f"lowest {in_words(loss)}", "epochs"]
        rows = []
        pages = zip(subject.runs, subject.pages, strict=True)
        runs = [run for run, page in pages if page.epochs >= 0]
        for run, record in zip(runs, subject.records, strict=True):
            figures = [*(finals([record], name)[0] for name in names), record.best(loss)]
            rows.append((run, [*figures, float(record.epochs)], record.ending))
        if len(rows) > 1:
            matrix = np.array([figures for _, figures, _ in rows])
            quantiles = {"median": 50, "lowest": 0, "highest": 100}
            over = [[name, *map(figure, quantile(matrix, q))] for name, q in quantiles.items()]
            blocks.append(Table(f"over {len(rows)} runs, in the end", columns, over))
        each = [[run, *map(figure, figures)] for run, figures, _ in rows]
        if any(ending for *_, ending in rows):
            columns = [*columns, "how it ended"]
            each = [[*row, ending or "–"] for row, (*_, ending) in zip(each, rows, strict=True)]
        if len(each) == 1:  # down rather than across: a phone is narrow
            blocks.append(
                Table("in the end", ["", each[0][0]], list(zip(columns, each[0], strict=True))[1:])
            )
        elif each:
            folded = len(each) > 6 or len(subjects) > 1
            blocks.append(Table("each run, in the end", columns, each, folded=folded))
        silent = len(subject.pages) - len(rows)
        if silent:
            blocks.append(Words(f"{silent} of {len(subject.pages)} pages have no line of measures"))
    return Section("figures", "In figures", blocks)


def quantile(matrix: np.ndarray, q: int) -> list[float]:
    """The quantile of each column, over its known values."""
    columns = [column[~np.isnan(column)] for column in matrix.T]
    return [float(np.percentile(c, q)) if c.size else np.nan for c in columns]


def differences_section(subjects: Sequence[ExperimentPages]) -> Section | None:
    """The settings that differ between experiments, and their losses."""
    if len(subjects) < 2:
        return None
    first, *others = subjects
    keys = dict.fromkeys(
        change.key for other in others for change in changes(first.settings, other.settings)
    )

    def value(subject: ExperimentPages, key: str) -> str:
        settings = subject.settings
        return shown(settings[f"{key}.name"] if f"{key}.name" in settings else settings.get(key))

    rows = [[key, *(value(subject, key) for subject in subjects)] for key in keys]
    ends = [finals(s.records, s.loss) for s in subjects]
    lowest = [[record.best(s.loss) for record in s.records] for s in subjects]
    for name, losses in (("in the end", ends), ("lowest", lowest)):
        figures = [figure(median_loss(each)) if each else "–" for each in losses]
        rows.append([f"→ {in_words(first.loss)} {name}, median", *figures])
    columns = ["setting", *(subject.label for subject in subjects)]
    about = "Settings that are not the same everywhere, and below them what came of it."
    table = Table("settings and outcome", columns, rows)
    return Section("differences", "What differs", [table], about)


# --- what was run ---------------------------------------------------------------------------------


def experiment_section(subjects: Sequence[ExperimentPages]) -> Section:
    """The complete experiments."""
    blocks = []
    for subject in subjects:
        seeds = [page.seed for page in subject.pages]
        whole = subject.experiment.model_copy(update={"seeds": tuple(seeds)})
        title = f"{subject.name} {subject.identity}, defaults filled in"
        blocks.append(Code(title, whole.to_json(), folded=True))
    about = "A page of the logbook is an experiment file: nnref run PAGE repeats it."
    return Section("experiment", "The experiment", blocks, about)


def remarks(subjects: Sequence[ExperimentPages]) -> list[list[str]]:
    """Remarks that were added to the pages, each with its run."""
    return [
        [f"{subject.label}, {run}", note]
        for subject in subjects
        for run, page in zip(subject.runs, subject.pages, strict=True)
        for note in page.notes
    ]
