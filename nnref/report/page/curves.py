"""The curves of runs: losses and other measures, and the learning rate, over the epochs."""

from collections.abc import Mapping, Sequence

import numpy as np

from nnref.errors import UserError
from nnref.logbook.verdicts import medians
from nnref.report.page.blocks import (
    BAND,
    Block,
    Chart,
    Heading,
    Line,
    Section,
    Switch,
    Switches,
    View,
    Words,
    figure,
)
from nnref.report.page.subjects import SPLITS, ExperimentPages, Network
from nnref.report.pictures import rate_of_run
from nnref.training.setup import from_experiment

NUMBERS = 100_000  # numbers in all lines of a chart, so that the page stays small
POINTS = 1_200  # points of a line, at most
SEEDS = 24  # lines of single seeds, at most


def curves_section(subjects: Sequence[ExperimentPages]) -> Section | None:
    """Losses and other measures over the epochs."""
    if not any(subject.history for subject in subjects):
        return None
    blocks: list[Block] = [curves(subjects)]
    clipped = clipped_chart(subjects)
    if clipped is not None:
        blocks += [Heading("Share of clipped steps"), clipped]
    about = (
        "Training values are means over an epoch while the network moves; validation values are "
        "taken after it. Point at a place, or move the slider, to read the figures; drag over the "
        "chart to zoom in, double-click to zoom out."
    )
    return Section("curves", "Curves", blocks, about)


def curves(subjects: Sequence[ExperimentPages]) -> Chart:
    """A view for each measure, the loss first."""
    names = dict.fromkeys(
        name.partition("_")[2]
        for subject in subjects
        for name in subject.history
        if name.partition("_")[0] in SPLITS
    )
    bases = sorted(names, key=lambda name: name != "loss")
    measures = {base.replace("_", " "): [f"{split}_{base}" for split in SPLITS] for base in bases}
    return chart_of(subjects, measures, "Training and validation")


def clipped_chart(subjects: Sequence[ExperimentPages]) -> Chart | None:
    """The share of steps whose gradient was clipped; None where none is clipped."""
    if not any("clipped" in subject.history for subject in subjects):
        return None
    return chart_of(subjects, {"clipped": ["clipped"]}, "Share of clipped steps in each epoch")


def chart_of(
    subjects: Sequence[ExperimentPages], measures: Mapping[str, Sequence[str]], what: str
) -> Chart:
    """Lines of every run and their median over the epochs.

    `measures` maps the title of each view to the names of what it shows; `what` is the chart in a
    few words, for those who do not see it.
    """
    wanted = [name for names in measures.values() for name in names]
    measured = {n: s for n, s in enumerate(subjects) if any(name in s.history for name in wanted)}
    several = len(subjects) > 1
    drawn = {number: drawn_seeds(subject) for number, subject in measured.items()}
    switches = switches_of(measured, wanted, drawn, several)
    known = {switch.tag for group in switches for switch in group.switches}
    count = sum(len(seeds) + 1 for seeds in drawn.values()) * len(wanted)
    most = int(np.clip(NUMBERS // max(1, count), 40, POINTS))
    views = []
    for title, names in measures.items():
        matrices = [s.history[n] for s in measured.values() for n in names if n in s.history]
        x = places(matrices, most)
        lines = [
            line._replace(tags=tuple(tag for tag in line.tags if tag in known))
            for number, subject in measured.items()
            for line in lines_of(subject, names, x, number, several, drawn[number])
        ]
        positive = all(v > 0 for line in lines for v in line.values if v is not None)
        views.append(View(title, x.tolist(), lines, log=title == "loss" and positive))
    ends = [f"{line.label} {figure(last(line.values))}" for line in views[0].main]
    alt = f"{what}: {views[0].label} over the epochs. In the end: {', '.join(ends)}."
    notes = []
    epochs = max(page.epochs for subject in measured.values() for page in subject.pages)
    if epochs + 1 > most:
        notes.append(
            f"Of {epochs + 1:,} epochs at most {max(len(v.x) for v in views):,} are drawn: those "
            "where a line is lowest or highest in a stretch, the first and the last."
        )
    for number, subject in measured.items():
        if len(drawn[number]) < len(subject.pages):
            notes.append(
                f"Of {len(subject.pages)} runs of {subject.label} {len(drawn[number])} are drawn, "
                "from the best to the worst; the median is that of all."
            )
    return Chart(alt, "epoch", views, switches, " ".join(notes))


def line_chart(
    alt: str,
    title: str,
    x_label: str,
    x: np.ndarray,
    lines: Sequence[Line],
    legend: str,
    note: str = "",
    **kinds: bool,
) -> Chart:
    """A chart of one view whose lines have a switch each, and one for all bands if there are any.

    The lines share x, (n,), and each has a tag of its own. `alt` is the chart in words, to which it
    is added how the lines end; `kinds` are further fields of the view. Unless they say otherwise
    the y axis is logarithmic where all values allow it.
    """
    values = [value for line in lines for value in (*line.values, *line.low)]
    log = kinds.pop("log", all(value > 0 for value in values if value is not None))
    groups = [Switches(legend, [Switch(line.tags[0], line.label, line.colour) for line in lines])]
    if any(line.low for line in lines):
        groups.append(Switches("bands", [Switch(BAND, "quartiles")]))
    ends = ", ".join(f"{line.label} {figure(line.values[-1])}" for line in lines)
    view = View(title, x.tolist(), list(lines), log=log, **kinds)
    return Chart(f"{alt}. In the end: {ends}.", x_label, [view], groups, note)


def last(values: Sequence[float | None]) -> float | None:
    """The last value that was measured, None where none was."""
    return next((value for value in reversed(values) if value is not None), None)


def drawn_seeds(subject: ExperimentPages) -> list[int]:
    """The numbers of the pages whose lines are drawn: where there are many, some of every rank."""
    count = len(subject.pages)
    if count <= SEEDS:
        return list(range(count))
    loss = subject.history.get(subject.loss, np.zeros((count, 1)))
    ends = [last([float(v) for v in row if np.isfinite(v)]) for row in loss]
    ranked = np.argsort([np.inf if end is None else end for end in ends], kind="stable")
    return sorted(int(ranked[round(p)]) for p in np.linspace(0, count - 1, SEEDS))


def places(matrices: Sequence[np.ndarray], most: int) -> np.ndarray:
    """The epochs that are drawn: of each matrix (runs, epochs) about `most`, extremes among them.

    Of a long history each stretch of epochs keeps the one with the lowest value of any run and the
    one with the highest, so that no spike is lost.
    """
    kept = [np.zeros(0, int)]
    for matrix in matrices:
        finite = np.isfinite(matrix)
        known = np.flatnonzero(finite.any(axis=0))
        if len(known) > most:
            low = np.where(finite, matrix, np.inf).min(axis=0)
            high = np.where(finite, matrix, -np.inf).max(axis=0)
            stretches = np.array_split(known, most // 2)
            extremes = [s[[low[s].argmin(), high[s].argmax()]] for s in stretches]
            known = np.concatenate([known[[0, -1]], *extremes])
        kept.append(known)
    return np.unique(np.concatenate(kept))


def at_places(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The values of (runs, epochs) at some epochs, (runs, n); NaN beyond the last epoch."""
    beyond = max(0, int(x.max(initial=0)) + 1 - matrix.shape[1])
    return np.pad(matrix, ((0, 0), (0, beyond)), constant_values=np.nan)[:, x]


def lines_of(
    subject: ExperimentPages,
    names: Sequence[str],
    x: np.ndarray,
    number: int,
    several: bool,
    drawn: Sequence[int],
) -> list[Line]:
    """The median of a measure over the runs of an experiment, and a thin line for each run."""
    lines = []
    for place, name in enumerate(name for name in names if name in subject.history):
        values = at_places(subject.history[name], x)
        split = SPLITS.get(name.partition("_")[0], name)
        family = f"{number} {split}"
        colour = number if several else place
        style = {"dashed": place > 0, "family": family, "colour": colour}
        tags = (split, f"run {number}")
        label = f"{subject.label} {split}" if several else split
        if len(values) > 1:
            for run in drawn:
                one = f"{label}, {subject.runs[run]}"
                mine = (*tags, "runs", f"run {number} {run}")
                lines.append(Line(one, rounded(values[run]), tags=mine, thin=True, **style))
            label = f"{label}, median"
            tags = (*tags, "median")
        lines.append(Line(label, rounded(medians(values)), tags=tags, **style))
    # The thick ones last, on top.
    return sorted(lines, key=lambda line: not line.thin)


def rounded(values: np.ndarray) -> list[float | None]:
    """Four digits: more cannot be seen; None for what is not finite."""
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]


def switches_of(
    subjects: Mapping[int, ExperimentPages],
    names: Sequence[str],
    drawn: Mapping[int, list[int]],
    several: bool,
) -> list[Switches]:
    """Switches for splits, experiments, medians, single runs."""
    known = {name for subject in subjects.values() for name in subject.history}
    splits = list(dict.fromkeys(SPLITS.get(n.partition("_")[0], n) for n in names if n in known))
    groups = []
    if len(splits) > 1:
        ours = [Switch(split, split, -1 if several else n) for n, split in enumerate(splits)]
        groups.append(Switches("show", ours))
    if len(subjects) > 1:
        ours = [Switch(f"run {n}", subject.label, n) for n, subject in subjects.items()]
        groups.append(Switches("experiments", ours))
    many = [n for n, subject in subjects.items() if len(subject.pages) > 1]
    if many:
        groups.append(Switches("lines", [Switch("median", "median"), Switch("runs", "each run")]))
    for n in many:
        runs = [Switch(f"run {n} {run}", subjects[n].runs[run]) for run in drawn[n]]
        name = f"runs of {subjects[n].label}" if several else "runs"
        groups.append(Switches(name, runs, folded=True))
    return groups


# --- the learning rate ----------------------------------------------------------------------------


def rates_section(subjects: Sequence[ExperimentPages], networks: Sequence[Network]) -> Section:
    """The learning rate over the run."""
    about = "Computed again from optimizer and schedule, as far as the runs went."
    return Section("rate", "Learning rate", [rates(subjects, networks)], about)


def rates(subjects: Sequence[ExperimentPages], networks: Sequence[Network]) -> Chart | Words:
    """The rate of each experiment; in words, where its data are not here to count the steps."""
    series: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # epochs and rates, by subject
    missing = []
    for number, (subject, net) in enumerate(zip(subjects, networks, strict=True)):
        experiment = subject.experiment
        try:
            setup = from_experiment(experiment)[1] if isinstance(net, str) else net.setup
        except UserError as error:
            missing.append(f"{subject.label}: {error}")
            continue
        longest = max(subject.pages, key=lambda page: page.epochs)
        losses = longest.history.get("valid_loss", np.zeros(0))
        series[number] = rate_of_run(experiment, setup, losses, longest.epochs)
    if not series:
        return Words(f"left out, as it takes the data to count the steps ({'; '.join(missing)})")
    labels, several = [subject.label for subject in subjects], len(subjects) > 1
    if all(rate.min() == rate.max() for _, rate in series.values()):
        constants = [f"{labels[n]} " * several + f"{r[0]:.4g}" for n, (_, r) in series.items()]
        return Words(f"Constant: {', '.join(constants)}.")
    x = np.unique(np.concatenate([epochs for epochs, _ in series.values()]))
    lines = []
    for number, (epochs, rate) in series.items():
        values = np.interp(x, epochs, rate, right=np.nan)
        name, tags = (labels[number], (f"run {number}",)) if several else ("learning rate", ())
        lines.append(Line(name, rounded(values), number, tags))
    ends = [f"{labels[n]} from {r[0]:.4g} to {r[-1]:.4g}" for n, (_, r) in series.items()]
    alt = f"Learning rate over the epochs: {', '.join(ends)}."
    view = View("learning rate", [float(f"{v:.6g}") for v in x], lines)
    ours = [Switch(f"run {number}", labels[number], number) for number in series]
    switches = [Switches("experiments", ours)] if several else []
    return Chart(alt, "epoch", [view], switches, "; ".join(missing))
