"""What there is to say of runs: headlines and sections, and the same as panels of one picture."""

import io
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image as Pixels

from nnref import pages
from nnref.errors import UserError
from nnref.index import changes, shown
from nnref.pages import Page
from nnref.report import network
from nnref.report.blocks import (
    Block,
    Chart,
    Code,
    Heading,
    Headline,
    Image,
    Line,
    Pictures,
    Report,
    Section,
    Switch,
    Switches,
    Table,
    View,
    Words,
    figure,
)
from nnref.report.panels import (
    Panel,
    chart_panels,
    confusion_panel,
    heat_map,
    histogram,
    inline,
    residual_panels,
)
from nnref.report.rates import rate_of_run
from nnref.report.subjects import Subject
from nnref.runs import Listener, Trained, trained
from nnref.task import from_experiment
from nnref.verdicts import Record

NUMBERS = 100_000  # in all lines of a chart, so that the page stays small
POINTS = 1_200  # of a line
SEEDS = 24  # lines of single seeds
LAYERS = 12  # whose histograms are drawn, of all experiments together
COLUMNS = 200  # of a heat map
CLASSES = 60  # of a confusion matrix
SIDE = 64  # pixels of an image that is shown
SPLITS = {"train": "training", "valid": "validation"}
FACTS = ("started", "ended", "versions", "machine", "device", "commit", "data", "together")


class Measure(NamedTuple):
    """A measure of the layers: its title, whether its colours are by its logarithm, its meaning."""

    title: str
    log: bool
    about: str


LAYER_MEASURES = {
    "gradient_norm": Measure("Gradient norm", True, "length of the gradient of its parameters"),
    "weight_norm": Measure("Weight norm", True, "length of its parameters"),
    "update_ratio": Measure(
        "Update / weight", True, "length of a step over that of the parameters; 0.001 is usual"
    ),
    "dead": Measure("Dead units", False, "share of units that give nothing for any example"),
    "saturated": Measure("Saturated units", False, "share of units where their function is flat"),
}

Network = Trained | str  # or why there is none
NOT_ASKED = "left out, as --no-network asks"


def network_of(subject: Subject, listener: Listener | None = None) -> Network:
    """The network of the first run that ended well, or in words why there is none."""
    for page in subject.pages:
        if page.complete and not page.facts.get("ending", "").startswith("diverged"):
            try:
                return trained(page.path, listener)
            except UserError as error:
                return str(error)
    return "no run has come to its end with finite numbers"


def report_of(
    subjects: Sequence[Subject], networks: Sequence[Network], told: Sequence[str] = ()
) -> Report:
    """Everything that a page says about runs.

    Args:
        subjects: experiments with their pages.
        networks: of each, or why there is none.
        told: what was left out before, in words.
    """
    one = len(subjects) == 1
    sections = [
        differences_section(subjects),
        figures_section(subjects, told),
        curves_section(subjects),
        rates_section(subjects, networks),
        layers_section(subjects),
        histograms_section(subjects, networks),
        answers_section(subjects, networks),
        experiment_section(subjects),
        notes_section(subjects),
        machine_section(subjects),
    ]
    title = subjects[0].label if one else f"{len(subjects)} experiments"
    names = {subject.name for subject in subjects}
    if not one and len(names) == 1:
        title = f"{names.pop()}: {title}"
    return Report(title, [headline(each) for each in subjects], [s for s in sections if s])


def panels_of(subjects: Sequence[Subject], networks: Sequence[Network]) -> list[Panel]:
    """The pictures of a page as panels."""
    found = chart_panels("loss", curves(subjects))
    rate = rates(subjects, networks)
    if isinstance(rate, Chart):
        found += chart_panels("learning rate", rate)
    clipped = clipped_chart(subjects)
    if clipped is not None:
        found += chart_panels("share of clipped steps", clipped)
    several = len(subjects) > 1
    for subject, net in zip(subjects, networks, strict=True):
        mine = layer_panels(subject)[0]
        if not isinstance(net, str):
            mine += histogram_panels(net, LAYERS // len(subjects))[0]
            mine += answer_panels(net)
        prefix = f"{subject.label}: " if several else ""
        found += [panel._replace(title=prefix + panel.title) for panel in mine]
    return found


# --- in figures ---------------------------------------------------------------------------------


def headline(subject: Subject) -> Headline:
    """The verdict, and the figures that one asks for first."""
    tone, word, sentence = subject.outcome
    records, loss = subject.records, subject.loss
    facts = [("seeds" if len(subject.pages) > 1 else "seed", seeds_of(subject))]
    if records:
        of = ", median" if len(records) > 1 else ""
        kind = SPLITS[loss.removesuffix("_loss")]
        facts.append((f"{kind} loss in the end{of}", figure(middle(finals(records, loss)))))
        facts.append((f"lowest{of}", figure(middle([record.best(loss) for record in records]))))
        facts.append((f"epochs{of}", f"{np.median([record.epochs for record in records]):g}"))
    facts.append(("started", subject.pages[0].facts.get("started", "–")[:16]))
    return Headline(tone, word, subject.label, sentence, subject.experiment.about, facts)


def seeds_of(subject: Subject) -> str:
    seeds = [page.experiment.seeds[0] for page in subject.pages]
    if len(seeds) > 3 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{len(seeds)}, {seeds[0]} to {seeds[-1]}"
    more = f" and {len(seeds) - 8} more" if len(seeds) > 8 else ""
    return ", ".join(map(str, seeds[:8])) + more


def finals(records: Sequence[Record], name: str) -> list[float]:
    return [r.final(name) if name in r.history or name == "epochs" else np.nan for r in records]


def middle(values: Sequence[float]) -> float:
    """The median; a run without a finite value counts as infinitely bad."""
    return float(np.median([v if np.isfinite(v) else np.inf for v in values]))


def figures_section(subjects: Sequence[Subject], told: Sequence[str]) -> Section:
    """How every run ended, in figures."""
    blocks: list[Block] = [Words(line) for line in told]
    for subject in subjects:
        if len(subjects) > 1:
            blocks.append(Heading(subject.label))
        names, loss = list(subject.history), subject.loss
        columns = ["run", *map(in_words, names), f"lowest {in_words(loss)}", "epochs"]
        rows = []
        runs = [run for run, page in zip(subject.runs, subject.pages, strict=True) if page.history]
        for run, record in zip(runs, subject.records, strict=True):
            figures = [finals([record], name)[0] for name in names]
            figures += [record.best(loss), float(record.epochs)]
            rows.append((run, figures, record.ending))
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
    """Of each column, over its known values."""
    columns = [column[~np.isnan(column)] for column in matrix.T]
    return [float(np.percentile(c, q, method="lower")) if c.size else np.nan for c in columns]


def in_words(name: str) -> str:
    """A measure as a reader would call it."""
    split, _, rest = name.partition("_")
    return f"{SPLITS[split]} {rest.replace('_', ' ')}" if split in SPLITS else name


def differences_section(subjects: Sequence[Subject]) -> Section | None:
    """What differs between experiments, and what came of it."""
    if len(subjects) < 2:
        return None
    first, *others = subjects
    keys = dict.fromkeys(
        change.key for other in others for change in changes(first.settings, other.settings)
    )

    def value(subject: Subject, key: str) -> str:
        settings = subject.settings
        return shown(settings[f"{key}.name"] if f"{key}.name" in settings else settings.get(key))

    rows = [[key, *(value(subject, key) for subject in subjects)] for key in keys]
    for name in ("in the end", "lowest"):
        figures = []
        for subject in subjects:
            records, loss = subject.records, subject.loss
            each = (
                finals(records, loss) if name == "in the end" else [r.best(loss) for r in records]
            )
            figures.append(figure(middle(each)) if records else "–")
        rows.append([f"→ {in_words(first.loss)} {name}, median", *figures])
    columns = ["setting", *(subject.label for subject in subjects)]
    about = "Settings that are not the same everywhere, and below them what came of it."
    table = Table("settings and outcome", columns, rows)
    return Section("differences", "What differs", [table], about)


# --- curves -------------------------------------------------------------------------------------


def curves_section(subjects: Sequence[Subject]) -> Section | None:
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


def curves(subjects: Sequence[Subject]) -> Chart:
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


def clipped_chart(subjects: Sequence[Subject]) -> Chart | None:
    """The share of steps whose gradient was clipped; None where none is clipped."""
    if not any("clipped" in subject.history for subject in subjects):
        return None
    return chart_of(subjects, {"clipped": ["clipped"]}, "Share of clipped steps in each epoch")


def chart_of(
    subjects: Sequence[Subject], measures: Mapping[str, Sequence[str]], what: str
) -> Chart:
    """Lines of every run and their median over the epochs.

    Args:
        subjects: experiments with their pages.
        measures: title of a view -> the names of what it shows.
        what: it is, for those who do not see it.
    """
    drawn = [drawn_seeds(subject) for subject in subjects]
    switches = switches_of(subjects, measures, drawn)
    known = {switch.tag for group in switches for switch in group.switches}
    lines = sum(len(seeds) + 1 for seeds in drawn) * sum(map(len, measures.values()))
    most = int(np.clip(NUMBERS // max(1, lines), 40, POINTS))
    views = []
    for title, names in measures.items():
        matrices = [s.history[n] for s in subjects for n in names if n in s.history]
        x = places(matrices, most)
        found = [
            line._replace(tags=tuple(tag for tag in line.tags if tag in known))
            for number, subject in enumerate(subjects)
            for line in lines_of(subject, names, x, number, len(subjects) > 1, drawn[number])
        ]
        positive = all(v > 0 for line in found for v in line.values if v is not None)
        views.append(View(title, x.tolist(), found, log=title == "loss" and positive))
    ends = [f"{line.label} {figure(last(line.values))}" for line in views[0].main]
    alt = f"{what}: {views[0].label} over the epochs. In the end: {', '.join(ends)}."
    told = []
    epochs = max(page.epochs for subject in subjects for page in subject.pages)
    if epochs + 1 > most:
        told.append(
            f"Of {epochs + 1:,} epochs at most {max(len(v.x) for v in views):,} are drawn: those "
            "where a line is lowest or highest in a stretch, the first and the last."
        )
    for subject, seeds in zip(subjects, drawn, strict=True):
        if len(seeds) < len(subject.pages) > 1:
            told.append(
                f"Of {len(subject.pages)} runs of {subject.label} {len(seeds)} are drawn, from the "
                "best to the worst; the median is that of all."
            )
    return Chart(alt, "epoch", views, switches, " ".join(told))


def last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def drawn_seeds(subject: Subject) -> list[int]:
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


def lines_of(
    subject: Subject,
    names: Sequence[str],
    x: np.ndarray,
    number: int,
    several: bool,
    drawn: Sequence[int],
) -> list[Line]:
    """The median of a measure over the runs of an experiment, and a thin line for each run."""
    found = []
    for place, name in enumerate(name for name in names if name in subject.history):
        matrix = subject.history[name]
        values = np.full((len(matrix), len(x)), np.nan)
        inside = x < matrix.shape[1]
        values[:, inside] = matrix[:, x[inside]]
        split = SPLITS.get(name.partition("_")[0], name)
        family = f"{number} {split}"
        colour = number if several else place
        style = {"dashed": place > 0, "family": family, "colour": colour}
        tags = (split, f"run {number}")
        label = f"{subject.label} {split}" if several else split
        if len(matrix) > 1:
            for run in drawn:
                one = f"{label}, {subject.runs[run]}"
                mine = (*tags, "runs", f"run {number} {run}")
                found.append(Line(one, rounded(values[run]), tags=mine, thin=True, **style))
            label = f"{label}, median"
            tags = (*tags, "median")
        found.append(Line(label, rounded(medians(values)), tags=tags, **style))
    # The thick ones last, on top.
    return sorted(found, key=lambda line: not line.thin)


def medians(values: np.ndarray) -> np.ndarray:
    """Over the runs that have a value, (epochs,); NaN where none has."""
    known = ~np.isnan(values).all(axis=0)
    middle = np.full(values.shape[1], np.nan)
    middle[known] = np.nanmedian(values[:, known], axis=0)
    return middle


def rounded(values: np.ndarray) -> list[float | None]:
    """Four digits: more cannot be seen; None for what is not finite."""
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]


def switches_of(
    subjects: Sequence[Subject], measures: Mapping[str, Sequence[str]], drawn: Sequence[list[int]]
) -> list[Switches]:
    """What can be switched on and off: splits, experiments, medians, single runs."""
    several = len(subjects) > 1
    there = {name for subject in subjects for name in subject.history}
    names = dict.fromkeys(name for group in measures.values() for name in group if name in there)
    splits = list(dict.fromkeys(SPLITS.get(name.partition("_")[0], name) for name in names))
    colours = {split: -1 if several else place for place, split in enumerate(splits)}
    groups = []
    if len(splits) > 1:
        ours = [Switch(split, split, colours[split]) for split in splits]
        groups.append(Switches("show", ours))
    if several:
        ours = [Switch(f"run {n}", s.label, n) for n, s in enumerate(subjects)]
        groups.append(Switches("experiments", ours))
    many = [n for n, subject in enumerate(subjects) if len(subject.pages) > 1]
    if many:
        groups.append(Switches("lines", [Switch("median", "median"), Switch("runs", "each run")]))
    for n in many:
        runs = [Switch(f"run {n} {run}", subjects[n].runs[run]) for run in drawn[n]]
        name = f"runs of {subjects[n].label}" if several else "runs"
        groups.append(Switches(name, runs, folded=True))
    return groups


def rates_section(subjects: Sequence[Subject], networks: Sequence[Network]) -> Section:
    """The learning rate over the run."""
    rate = rates(subjects, networks)
    return Section(
        "rate",
        "Learning rate",
        [rate],
        "Computed again from optimizer and schedule, as far as the runs went.",
    )


def rates(subjects: Sequence[Subject], networks: Sequence[Network]) -> Chart | Words:
    """The rate of each experiment; in words, where its data are not here to count the steps."""
    found: list[tuple[str, np.ndarray, np.ndarray]] = []
    missing = []
    for subject, net in zip(subjects, networks, strict=True):
        experiment = subject.experiment
        try:
            setup = from_experiment(experiment)[1] if isinstance(net, str) else net.setup
        except UserError as error:
            missing.append(f"{subject.label}: {error}")
            continue
        longest = max(subject.pages, key=lambda page: page.epochs)
        losses = longest.history.get("valid_loss", np.zeros(0))
        found.append((subject.label, *rate_of_run(experiment, setup, losses, longest.epochs)))
    if not found:
        return Words(f"left out, as it takes the data to count the steps ({'; '.join(missing)})")
    x = np.unique(np.concatenate([epochs for _, epochs, _ in found]))
    several = len(subjects) > 1
    lines = []
    for number, (label, epochs, rate) in enumerate(found):
        values = np.interp(x, epochs, rate, right=np.nan)
        name, tags = (label, (f"run {number}",)) if several else ("learning rate", ())
        lines.append(Line(name, rounded(values), number, tags))
    ours = [Switch(f"run {n}", label, n) for n, (label, *_) in enumerate(found)]
    if all(rate.min() == rate.max() for *_, rate in found):
        said = [
            f"{label} {rate[0]:.4g}" if several else f"{rate[0]:.4g}" for label, _, rate in found
        ]
        return Words(f"Constant: {', '.join(said)}.")
    told = [f"{label} from {rate[0]:.4g} to {rate[-1]:.4g}" for label, _, rate in found]
    return Chart(
        f"Learning rate over the epochs: {', '.join(told)}.",
        "epoch",
        [View("learning rate", [float(f"{v:.6g}") for v in x], lines)],
        [Switches("experiments", ours)] if several else [],
        "; ".join(missing),
    )


# --- layers over the run ------------------------------------------------------------------------


def layers_section(subjects: Sequence[Subject]) -> Section | None:
    """What was measured of every layer while it was trained; nothing where nothing was."""
    blocks: list[Block] = []
    for subject in subjects:
        panels, table, runs = layer_panels(subject)
        if panels and len(subjects) > 1:
            blocks.append(Heading(subject.label))
        if panels:
            median = f"The median of {runs} runs. " if runs > 1 else ""
            blocks += [Words(f"{median}Blank where a measure does not apply.")] if median else []
            blocks += [Pictures([inline(panel) for panel in panels]), table]
    if not blocks:
        return None
    told = [f"{one.title.lower()}, {one.about}" for one in LAYER_MEASURES.values()]
    about = f"From the first layer at the top to the last: {'; '.join(told)}."
    return Section("layers", "Layers over the run", blocks, about)


def layer_panels(subject: Subject) -> tuple[list[Panel], Table, int]:
    """Heat maps of a subject, the same in figures, and of how many runs."""
    found = [probes for page in subject.pages if (probes := probes_of(page)) is not None]
    found = [probes for probes in found if len(probes["step"])]
    table, panels = Table("", [], []), []
    if not found:
        return panels, table, 0
    layers = [str(name) for name in found[0]["layers"]]
    length = min(len(probes["step"]) for probes in found)
    stretches = np.array_split(np.arange(length), min(length, COLUMNS))
    epochs = np.array([found[0]["epoch"][stretch].mean() for stretch in stretches])
    columns, cells = ["layer"], [[name] for name in layers]
    for name, measure in LAYER_MEASURES.items():
        values = np.stack([probes[name][:length] for probes in found])
        values = medians(values.reshape(len(found), -1)).reshape(length, len(layers))
        if np.isnan(values).all():
            continue
        drawn = np.stack([medians(values[stretch]) for stretch in stretches])
        alt = f"{measure.title} of {len(layers)} layers over the epochs; the table has figures."
        panels.append(heat_map(measure.title, alt, drawn, epochs, layers, measure.log))
        columns += [f"{measure.title.lower()}, first", "last"]
        for row, first, end in zip(cells, drawn[0], drawn[-1], strict=True):
            row += [figure(first), figure(end)]
    return panels, Table("the layers in figures", columns, cells, folded=True), len(found)


def probes_of(page: Page) -> Mapping[str, np.ndarray] | None:
    """What was measured of the layers of a run, if anything."""
    reader: Callable[[Page], Mapping[str, np.ndarray] | None] | None
    reader = getattr(pages, "probes_of", None)
    return None if reader is None else reader(page)


# --- the network --------------------------------------------------------------------------------


def of_networks(
    subjects: Sequence[Subject],
    networks: Sequence[Network],
    blocks_of: Callable[[Trained], list[Block]],
) -> list[Block]:
    """What there is to say of each network, or why there is none."""
    blocks: list[Block] = []
    for subject, net in zip(subjects, networks, strict=True):
        if len(subjects) > 1:
            blocks.append(Heading(subject.label))
        if isinstance(net, str):
            blocks.append(Words(net))
            continue
        if len(subject.pages) > 1:
            blocks.append(Words(f"Of the run with seed {net.page.experiment.seeds[0]}."))
        try:
            blocks += blocks_of(net)
        except UserError as error:
            blocks.append(Words(str(error)))
    return blocks


def histograms_section(subjects: Sequence[Subject], networks: Sequence[Network]) -> Section:
    """Weights and activations before and after training."""

    def blocks_of(net: Trained) -> list[Block]:
        panels, table, note = histogram_panels(net, LAYERS // len(subjects))
        notes: list[Block] = [Words(note)] if note else []
        return [*notes, Pictures([inline(panel) for panel in panels]), table]

    about = (
        "How the numbers of each layer are spread, at the start and in the end. Activations are "
        f"what a layer gives for at most {network.EXAMPLES} training examples."
    )
    blocks = of_networks(subjects, networks, blocks_of)
    return Section("histograms", "Weights and activations", blocks, about)


def histogram_panels(net: Trained, most: int) -> tuple[list[Panel], Table, str]:
    """Two panels a layer, the figures of all layers, and what was left out, in words."""
    layers = network.layers_of(net)
    most = max(2, most)
    chosen = layers if len(layers) <= most else [*layers[: most // 2], *layers[-(most // 2) :]]
    note = ""
    if len(chosen) < len(layers):
        note = f"Of {len(layers)} layers the first {most // 2} and the last {most // 2} are drawn."
    panels, rows = [], []
    for layer in layers:
        row = [layer.name]
        for what, (start, end) in (("weights", layer.weights), ("activations", layer.activations)):
            pair = [float(np.std(values)) if values.size else np.nan for values in (start, end)]
            row += map(figure, pair)
            if start.size and layer in chosen:
                alt = f"{what} of {layer.name}: deviation {pair[0]:.3g} at the start, "
                title = f"{layer.name}: {what}"
                panels.append(histogram(title, f"{alt}{pair[1]:.3g} in the end", start, end))
        zeros = [v.size and float(np.mean(v == 0)) for v in layer.activations]
        rows.append([*row, *(f"{share:.0%}" for share in zeros)])
    columns = ["layer", "weights, deviation at the start", "in the end"]
    columns += ["activations, deviation at the start", "in the end"]
    columns += ["activations that are 0, at the start", "in the end"]
    return panels, Table("the layers in figures", columns, rows, folded=True), note


def answers_section(subjects: Sequence[Subject], networks: Sequence[Network]) -> Section:
    """What the networks answer: mistakes, residuals, or text."""
    blocks = of_networks(subjects, networks, answer_blocks)
    return Section("answers", "What the network answers", blocks)


def answer_blocks(net: Trained) -> list[Block]:
    """Of one network."""
    if net.dataset.unit is not None:
        return sample_blocks(net)
    answers = network.answers_of(net)
    asked = f"{len(answers.x):,} {SPLITS[answers.split]} rows"
    if len(answers.x) < answers.rows:
        asked = f"the first {asked} of {answers.rows:,}"
    if not net.dataset.classes:
        return value_blocks(net, answers, asked)
    wrong, worst = network.worst_mistakes(net, answers)
    blocks: list[Block] = [
        Words(f"{wrong:,} of {asked} are answered wrongly ({wrong / len(answers.x):.2%}).")
    ]
    classes = net.dataset.classes
    if len(classes) <= CLASSES:
        counts = network.confusion(net, answers)
        blocks.append(Pictures([inline(confusion_of(counts, classes, wrong, asked))]))
        rows = [[name, *map(str, row)] for name, row in zip(classes, counts, strict=True)]
        caption = "confusion matrix: a row for each class, a column for each answer"
        blocks.append(Table(caption, ["class", *classes], rows, folded=True))
    blocks.append(Heading("The worst mistakes" if wrong else "The least certain answers"))
    return [*blocks, mistakes_block(net, worst)]


def answer_panels(net: Trained) -> list[Panel]:
    """The pictures among them."""
    if net.dataset.unit is not None:
        return []
    answers = network.answers_of(net)
    asked = f"{len(answers.x):,} {SPLITS[answers.split]} rows"
    classes = net.dataset.classes
    if classes:
        if len(classes) > CLASSES:
            return []
        wrong, _ = network.worst_mistakes(net, answers)
        return [confusion_of(network.confusion(net, answers), classes, wrong, asked)]
    predicted = network.predictions(net, answers)
    return [] if predicted is None else residual_panels(answers.targets, predicted, asked)


def confusion_of(counts: np.ndarray, classes: Sequence[str], wrong: int, asked: str) -> Panel:
    """The confusion matrix, with the most frequent confusion in words."""
    apart = counts * (1 - np.eye(len(counts), dtype=int))
    i, j = divmod(int(apart.argmax()), len(counts))
    most = f"; most often {classes[i]} is taken for {classes[j]}, {apart[i, j]}×" if wrong else ""
    return confusion_panel(f"Confusion matrix: {wrong} of {asked} wrong{most}", counts, classes)


def mistakes_block(net: Trained, worst: Sequence[network.Mistake]) -> Block:
    """Examples as images where they are images, else as rows."""
    images = network.as_images(net, worst)
    sure = ["" if m.probability is None else f"{m.probability:.1%}" for m in worst]
    if images is not None:
        told = [f"{m.label}, answered {m.answer}" for m in worst]
        return Pictures(
            [
                Image(f"row {m.row}: {words}", uri=png(image), caption=f"{words} {share}".strip())
                for m, words, share, image in zip(worst, told, sure, images, strict=True)
            ],
            small=True,
        )
    width = min(8, worst[0].x.size)
    names = list(net.dataset.columns[:width])
    names += [f"input {place + 1}" for place in range(len(names), width)]
    rows = [
        [str(m.row), m.label, m.answer, *([share] if any(sure) else []), *values_of(m.x, width)]
        for m, share in zip(worst, sure, strict=True)
    ]
    columns = ["row", "class", "answer", *(["its probability"] if any(sure) else []), *names]
    more = f", the first {width} of {worst[0].x.size} inputs" if worst[0].x.size > width else ""
    return Table(f"rows with the largest loss{more}", columns, rows)


def values_of(x: np.ndarray, width: int) -> list[str]:
    return [figure(float(value)) for value in x.ravel()[:width]]


def png(image: np.ndarray) -> str:
    """Pixels as an address that holds them all."""
    pixels = Pixels.fromarray(image)
    pixels.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    pixels.save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(written.getvalue()).decode()}"


def value_blocks(net: Trained, answers: network.Answers, asked: str) -> list[Block]:
    """Residuals of a regression."""
    predicted = network.predictions(net, answers)
    if predicted is None:
        return [Words(f"The targets of {net.experiment.loss.name} are no values to be met.")]
    residuals = (predicted - answers.targets).ravel()
    deviation = float(np.sqrt(np.mean(np.square(residuals))))
    spread = float(np.std(answers.targets))
    said = (
        f"Over {asked} the answers are off by {deviation:.4g} (root of the mean square), on "
        f"average by {np.mean(residuals):+.4g}; the targets themselves vary by {spread:.4g}."
    )
    alt = f"answers and residuals: {said}"
    panels = residual_panels(answers.targets, predicted, alt)
    rows = np.argsort(-np.abs(residuals))[:8]
    targets, said_values = answers.targets.ravel(), predicted.ravel()
    worst = [
        [str(r // (residuals.size // len(answers.x)))]
        + [figure(float(values[r])) for values in (targets, said_values, residuals)]
        for r in rows.tolist()
    ]
    table = Table("the largest residuals", ["row", "target", "answer", "residual"], worst)
    return [Words(said), Pictures([inline(panel) for panel in panels]), table]


def sample_blocks(net: Trained) -> list[Block]:
    """Text that a language model writes."""
    prompt, texts = network.samples_of(net)
    blocks: list[Block] = [
        Words(
            "The model reads the beginning of the held-out text and goes on with it, drawing "
            f"each character at a temperature of {network.TEMPERATURE}."
        ),
        Code("what it reads", prompt),
    ]
    for number, text in enumerate(texts, 1):
        blocks.append(Code(f"what it writes, {number} of {len(texts)}", text))
    return blocks


# --- what was run -------------------------------------------------------------------------------


def experiment_section(subjects: Sequence[Subject]) -> Section:
    """The complete experiments."""
    blocks = []
    for subject in subjects:
        seeds = tuple(page.experiment.seeds[0] for page in subject.pages)
        whole = subject.experiment.model_copy(update={"seeds": seeds})
        title = f"{subject.name} {subject.identity}, defaults filled in"
        blocks.append(Code(title, whole.to_json(), folded=True))
    about = "A page of the logbook is an experiment file: nnref run PAGE repeats it."
    return Section("experiment", "The experiment", blocks, about)


def notes_section(subjects: Sequence[Subject]) -> Section | None:
    """Remarks that were added to the pages."""
    rows = [
        [f"{subject.label}, {run}", note]
        for subject in subjects
        for run, page in zip(subject.runs, subject.pages, strict=True)
        for note in page.notes
    ]
    if not rows:
        return None
    table = Table("remarks", ["run", "remark"], rows, numbers=False)
    return Section("notes", "Notes", [table])


def machine_section(subjects: Sequence[Subject]) -> Section:
    """Versions and machine, where, when and on which data."""
    rows = []
    for key in FACTS:
        cells = []
        for subject in subjects:
            said = list(dict.fromkeys(page.facts.get(key, "–") for page in subject.pages))
            more = f" and {len(said) - 3} others" if len(said) > 3 else ""
            cells.append("; ".join(said[:3]) + more)
        rows.append([{"together": "seeds in one program"}.get(key, key), *cells])
    columns = ["", *(subject.label for subject in subjects)]
    table = Table("versions and machine", columns, rows, numbers=False)
    return Section("machine", "Versions and machine", [table])
