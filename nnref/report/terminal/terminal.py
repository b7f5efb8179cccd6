"""A run on the terminal, and as JSON: progress, then a table, a curve and the verdict.

Sober where the output is no terminal: no bar, no colour, no escape codes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nnref.data import Dataset
from nnref.errors import printable
from nnref.experiment.claims import CountClaim
from nnref.experiment.experiment import Experiment
from nnref.logbook.index import entries, near, settings_of
from nnref.logbook.verdicts import medians
from nnref.parts.metrics import is_loss
from nnref.report.plain import attributes, plain
from nnref.report.terminal.data import show_columns
from nnref.report.terminal.logbook import nearest_attempts, sparkline
from nnref.studies.listeners import Listener
from nnref.studies.run import Run
from nnref.training.loop import Chunk

MANY = 20  # seeds that have a row each; more are shown as quantiles
QUANTILES = {0: "lowest", 25: "quarter", 50: "median", 75: "3 quarters", 100: "highest"}
SPARK_WIDTH = 20


class Speed(ProgressColumn):
    """Updates a second, of all seeds together."""

    def render(self, task: Task) -> Text:
        """The speed over the last chunks."""
        per_epoch = task.fields["steps_per_epoch"]
        return Text(f"{(task.speed or 0) * per_epoch:,.0f} steps/s")


class TerminalListener(Listener):
    """While a run trains: epoch, steps a second, time left, and how each seed does."""

    def __init__(self, console: Console, logbook: Path | None = None):
        self.console = console
        self.logbook = logbook  # where to look for what was tried before
        self.live: Live | None = None
        self.seeds: Sequence[int] = ()
        self.losses: list[np.ndarray] = []  # of the chunks, (epochs, seeds)
        self.latest: dict[str, np.ndarray] = {}  # the last value of each measure, (seeds,)

    def reads(self, dataset: Dataset) -> None:
        """Show what each column of a table is used for."""
        show_columns(dataset, self.console)

    def begins(
        self, experiment: Experiment, seeds: Sequence[int], steps_per_epoch: int, note: str
    ) -> None:
        """Say what the logbook knew, and open the bar."""
        if note:
            self.console.print(note, highlight=False)
        if self.logbook is not None:
            settings = settings_of(experiment.to_json())
            tried = nearest_attempts(near(settings, entries(self.logbook)[0], limit=3))
            if tried:
                self.console.print(tried, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            return
        self.seeds = seeds
        self.progress = Progress(
            TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            Speed(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.bar = self.progress.add_task(
            "", total=experiment.epochs, steps_per_epoch=steps_per_epoch * len(seeds)
        )
        self.live = Live(get_renderable=self.view, console=self.console, transient=True)
        self.live.start()

    def hears(self, chunk: Chunk) -> None:
        """Move the bar on, and keep the figures of each seed."""
        if self.live is None:
            return
        done = chunk.first + len(chunk.active) - 1 + chunk.share
        self.progress.update(self.bar, completed=done)
        if not len(chunk.active):  # in the midst of an epoch there are none
            return
        # What a seed gives after its end means nothing.
        history = {n: np.where(chunk.active, v, np.nan) for n, v in chunk.history.items()}
        self.losses.append(history["train_loss"])
        latest = {}
        for name, values in history.items():
            known = ~np.isnan(values)
            last = len(values) - 1 - np.argmax(known[::-1], axis=0)
            newest = values[last, np.arange(len(self.seeds))]
            latest[name] = np.where(known.any(axis=0), newest, self.latest.get(name, newest))
        self.latest = latest  # at once: another thread draws it

    def view(self) -> Group:
        """The bar, and a line for each seed, or for their median where there are many."""
        lines = []
        losses = np.concatenate(self.losses) if self.losses else np.empty((0, len(self.seeds)))
        if len(self.seeds) > MANY:
            latest = {name: np.nanmedian(values) for name, values in self.latest.items()}
            median = np.nanmedian(losses, axis=1)
            line = f"median of {len(self.seeds)} seeds  {losses_and_metric(latest)}  "
            lines.append((line, median))
        else:
            for run, seed in enumerate(self.seeds):
                latest = {name: values[run] for name, values in self.latest.items()}
                who = f"seed {seed:<3} " if len(self.seeds) > 1 else ""
                lines.append((f"{who}{losses_and_metric(latest)}  ", losses[:, run]))
        room = self.console.width - max(len(line) for line, _ in lines)
        drawn = [line + sparkline(values, min(SPARK_WIDTH, room)) for line, values in lines]
        return Group(self.progress, *(Text(line, no_wrap=True) for line in drawn))

    def ends(self) -> None:
        """Take the bar away."""
        if self.live is not None:
            self.live.stop()


def losses_and_metric(latest: Mapping[str, float]) -> str:
    """The losses and the first metric in a line; of validation data, where there are any."""
    names = [name for name in latest if is_loss(name)]
    metrics = [name for name in latest if name not in (*names, "clipped")]
    metrics.sort(key=lambda name: not name.startswith("valid_"))
    return "  ".join(f"{name} {latest[name]:.4g}" for name in names + metrics[:1])


def tables(run: Run) -> list[Table]:
    """How each seed ended: losses and the first metric, then all other measures if there are any.

    The figures are of the network that is kept, and the best of all epochs.
    """
    measures = list(run.records[0].history)
    losses = [name for name in measures if is_loss(name)]
    metric = next((n[6:] for n in measures if n.startswith("train_") and n not in losses), None)
    main = [name for name in (f"train_{metric}", f"valid_{metric}") if name in measures]
    rest = [name for name in measures if name not in (*losses, *main)]
    columns = {f"{n}{end}": (n, end) for n in losses for end in ("", " best")}
    columns |= {name: (name, "") for name in (*main, *run.records[0].test)}
    # What is measured once, at the end, is reached at no epoch.
    claims = [c for c in run.experiment.claim if isinstance(c, CountClaim) and c.metric in measures]
    target = claims[0] if claims else run.experiment.stop
    rows = []
    for record in run.records:
        figures = [record.best(n) if end else record.final(n) for n, end in columns.values()]
        if target:
            first = record.epochs_to(target)
            figures.append(float("inf") if first is None else first)
        kept = record.epochs if record.kept is None else record.kept
        rows.append((str(record.seed), [*figures, kept], record.ending.split(" ")[0]))
    shown = [seed_table([*columns, *(["to_target"] if target else []), "epoch"], rows)]
    if rest:
        others = [(str(r.seed), [r.final(name) for name in rest], "") for r in run.records]
        shown.append(seed_table(rest, others))
    return shown


def seed_table(columns: Sequence[str], rows: Sequence[tuple[str, list[float], str]]) -> Table:
    """A row for each seed and their median, or quantiles alone where there are many."""
    shown = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("seed", *columns):
        title = "\nbest" if column.endswith(" best") else column.replace("_", "\n")
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("")
    if len(rows) <= MANY:
        for seed, figures, ending in rows:
            shown.add_row(seed, *map(in_digits, figures), ending)
    if len(rows) > 1:
        matrix = np.array([figures for _, figures, _ in rows])
        quantiles = QUANTILES if len(rows) > MANY else {50: "median"}
        for q, name in quantiles.items():
            quantile = np.nanpercentile(matrix, q, axis=0, method="lower")
            shown.add_row(name, *map(in_digits, quantile), style="bold")
    return shown


def in_digits(value: float) -> str:
    """Three digits, or all digits of a whole number; `never` for an epoch that never came."""
    if np.isnan(value):
        return "-"
    if np.isinf(value):
        return "never"
    return f"{int(value)}" if value == int(value) else f"{value:.3g}"


def curve(run: Run, width: int = 64, height: int = 8) -> str:
    """The median loss over the epochs, on a logarithmic scale, drawn in text."""
    losses = {n: medians(v) for n, v in run.history.items() if is_loss(n)}
    marks = dict(zip(losses, "·•", strict=False))
    grid = [[" "] * width for _ in range(height)]
    drawable = {}
    for name, median in losses.items():
        epochs = np.flatnonzero(np.isfinite(median) & (median > 0))
        if len(epochs):
            drawable[name] = epochs, np.log10(median[epochs])
    if not drawable:
        return ""
    low = min(y.min() for _, y in drawable.values())
    high = max(y.max() for _, y in drawable.values())
    last = max(epochs[-1] for epochs, _ in drawable.values()) or 1
    for name, (epochs, y) in drawable.items():
        # Fewer epochs than columns: a line between them; more: their median.
        columns = np.round(epochs * (width - 1) / last).astype(int)
        drawn = np.arange(columns[0], columns[-1] + 1)
        binned = [np.median(y[columns == column]) for column in np.unique(columns)]
        levels = (np.interp(drawn, np.unique(columns), binned) - low) / ((high - low) or 1)
        for column, level in zip(drawn, levels, strict=True):
            grid[height - 1 - round(level * (height - 1))][column] = marks[name]
    labels = [f"{10**high:.3g}", *[""] * (height - 2), f"{10**low:.3g}"]
    lines = [f"{label:>9} {''.join(row)}" for label, row in zip(labels, grid, strict=True)]
    legend = "   ".join(f"{mark} {name}" for name, mark in marks.items())
    scale = f"0{'epoch ' + str(last):>{width - 1}}"
    return "\n".join(line.rstrip() for line in [*lines, f"{'':9} {scale}", f"{'':9} {legend}"])


def show(run: Run, console: Console) -> None:
    """A finished run: its name, table, curve and verdict."""
    experiment = run.experiment
    console.print(Text.assemble((run.name, "bold"), f" {experiment.identity}"))
    if experiment.about:
        console.print(printable(experiment.about), highlight=False)
    console.print()
    for each in tables(run):
        console.print(each)
    console.print()
    console.print(curve(run), highlight=False)
    console.print()
    good = run.verdict.exit_code == 0
    console.print(run.verdict.sentence, style="bold green" if good else "bold red", highlight=False)


def run_as_json(run: Run, picture: Path | None) -> dict[str, Any]:
    """A run as plain values: null in the place of NaN, which JSON does not have."""
    metrics = {} if run.task is None else run.task.functions.metrics
    seeds = [
        attributes(record, "seed", "epochs")
        | {
            "ending": record.ending or None,
            "page": record.page,
            "final": {name: record.final(name) for name in (*record.history, *record.test)},
            "best": {name: record.best(name, metrics) for name in record.history},
        }
        for record in run.records
    ]
    verdict = {"verdict": run.verdict.sentence, "held": run.verdict.held, "seconds": run.seconds}
    head = {"name": run.name, "identity": run.experiment.identity}
    return plain(head | verdict | {"picture": picture, "seeds": seeds})
