"""Studies of many networks on the terminal, and as JSON: a sweep, a range of rates, a crawl."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from nnref.errors import printable
from nnref.experiment.axes import Setting, settings_in_words, short_names, value_in_words
from nnref.logbook.index import number
from nnref.report.plain import attributes, finite, plain
from nnref.report.terminal.logbook import plain_table
from nnref.studies.cluster import Node
from nnref.studies.crawl import Crawl
from nnref.studies.groups import COMPILATION, Group, Variant
from nnref.studies.listeners import SweepListener
from nnref.studies.lr_range import LrRange
from nnref.studies.sweep_record import SweepPlan, SweepResult

SHOWN = 12  # variants, or groups of the plan; the others are on the page


def show_plan(plan: SweepPlan, console: Console, nodes: Sequence[Node] = ()) -> None:
    """Groups, programs and runs, with what they will take, and the nodes of a cluster."""
    console.print(Text.assemble((plan.name, "bold"), f" {plan.identity}"))
    if plan.experiment.about:
        console.print(printable(plan.experiment.about), highlight=False)
    console.print()
    right = ("variants", "runs", "at once", "memory", "time")
    table = plain_table("group", *right, right=right, wraps=["group"])
    whole = plan_as_json(plan, nodes)
    for group, row in list(zip(plan.groups, whole["groups"], strict=True))[:SHOWN]:
        figures = row["variants"], row["runs"], row["in_one_call"]
        spent = f"{row['bytes'] / 1e6:,.1f} MB", about(row["seconds"])
        table.add_row(label(group, plan.variants), *map(str, figures), *spent)
    console.print(table)
    if len(plan.groups) > SHOWN:
        console.print(f"and {len(plan.groups) - SHOWN} more")
    halved = ""
    if len(plan.rungs) > 1:
        left = [plan.survivors(rung) for rung in range(len(plan.rungs))]
        halved = f"; halving: {' → '.join(map(str, left))} variants"
    console.print(
        f"\n{whole['variants']} variants on {len(plan.seeds)} seeds: {whole['runs']} runs, "
        f"{len(plan.groups)} programs, about {about(whole['seconds'])}{halved}\n",
        highlight=False,
    )
    if nodes:
        at_once, where = sum(node.blocks for node in nodes), ", ".join(map(str, nodes))
        words = f"{whole['blocks']} blocks of runs, {at_once} at once, on {where}\n"
        console.print(words, highlight=False)


def plan_as_json(plan: SweepPlan, nodes: Sequence[Node] = ()) -> dict[str, Any]:
    """The plan as plain values; seconds, of this machine's cores, and bytes are estimates."""
    share = share_of_halving(plan)
    groups = [
        {
            "settings": settings_in_words(common(group, plan.variants)),
            "variants": len({job.variant for job in group.jobs}),
            "runs": len(group.jobs),
            "in_one_call": group.together,
            "bytes": int(group.cost.bytes * group.together),
            "seconds": float(COMPILATION + share * (group.seconds - COMPILATION)),
        }
        for group in plan.groups
    ]
    counts = {"variants": len(plan.variants), "seeds": plan.seeds, "runs": len(plan.jobs)}
    seconds = sum(group["seconds"] for group in groups)
    head = attributes(plan, "name", "identity")
    whole = head | counts | {"seconds": seconds, "groups": groups}
    if nodes:
        whole |= {"blocks": blocks_in(plan), "nodes": [node._asdict() for node in nodes]}
    return plain(whole)


def blocks_in(plan: SweepPlan) -> int:
    """How many blocks of runs a plan has, of which each is one call of a program."""
    return sum(-(-len(group.jobs) // group.together) for group in plan.groups)


def share_of_halving(plan: SweepPlan) -> float:
    """The share of all epochs that is trained: with halving, worse variants end earlier."""
    steps = np.diff([0, *plan.rungs])
    left = [plan.survivors(rung) for rung in range(len(plan.rungs))]
    return float(np.dot(steps, left) / (plan.rungs[-1] * len(plan.variants)))


def label(group: Group, variants: Sequence[Variant]) -> str:
    """The settings that set a group apart: values that no other has, and paths that vary in it."""
    shared = common(group, variants)
    paths = [{setting.path for setting in variant.settings} for variant in variants]
    mine = variants[group.jobs[0].variant].settings
    own = [s.path for s in mine if s.path not in set.intersection(*paths) and s not in shared]
    words = [(s.path, f" {value_in_words(s.value)}") for s in shared if not (own and s.value == {})]
    words += [(path, "") for path in own]
    names = short_names([path for path, _ in words])
    parts = (f"{name}{value}" for name, (_, value) in zip(names, words, strict=True))
    return ", ".join(parts) or "all others"


def common(group: Group, variants: Sequence[Variant]) -> list[Setting]:
    """The settings that all variants of a group share, and others do not."""
    mine = [variants[number] for number in sorted({job.variant for job in group.jobs})]

    def in_all(setting: Setting, some: Sequence[Variant]) -> bool:
        path, value, _ = setting
        return all(any(s.path == path and s.value == value for s in v.settings) for v in some)

    return [s for s in mine[0].settings if in_all(s, mine) and not in_all(s, variants)]


def about(seconds: float) -> str:
    """A time in words."""
    if not 1e-3 <= seconds < np.inf:
        return "∞" if seconds == np.inf else f"{seconds * 1e3:.2g} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class TerminalSweepListener(SweepListener):
    """A bar over the epochs of all runs; nothing where the output is no terminal."""

    def __init__(self, console: Console):
        self.console = console
        self.progress: Progress | None = None

    def begins(self, epochs: int, done: int) -> None:
        """Open the bar."""
        if done:
            share = f"{done / epochs:.0%}" if epochs else "all"
            self.console.print(f"{share} was done before and is not run again", highlight=False)
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            TextColumn("{task.percentage:.0f} %"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.bar = self.progress.add_task("", total=epochs, completed=done)
        self.progress.start()

    def hears(self, epochs: int) -> None:
        """Move the bar on."""
        if self.progress is not None:
            self.progress.update(self.bar, advance=epochs)

    def ends(self) -> None:
        """Take the bar away."""
        if self.progress is not None:
            self.progress.stop()


def show_swept(swept: SweepResult, console: Console) -> None:
    """The best variants, and the verdict."""
    right = (swept.loss, "best", "diverged")
    paths = list(dict.fromkeys(s.path for variant in swept.variants for s in variant.settings))
    words = [*short_names(paths), "how it ended"]
    table = plain_table(*words[:-1], *right, words[-1], right=right, wraps=words)
    for place in swept.ranking[:SHOWN]:
        diverged, ended = swept.failed(place), swept.ending(place)
        losses = (number(finite(value)) for value in (swept.final(place), swept.best(place)))
        failed = f"{diverged} of {len(swept.seeds)}" if diverged else ""
        values = {s.path: value_in_words(s.value) for s in swept.variants[place].settings}
        table.add_row(*(values.get(path, "") for path in paths), *losses, failed, ended)
    console.print(table, highlight=False)
    if len(swept.variants) > SHOWN:
        console.print(f"and {len(swept.variants) - SHOWN} more")
    console.print(f"\n{swept.sentence}", style="bold", highlight=False)
    if swept.repeated:
        what = f"{swept.repeated} blocks of runs were trained again"
        console.print(f"{what}, as a worker or node of the cluster had died", highlight=False)
    if swept.page is not None:
        console.print(f"page     {swept.page}", highlight=False, soft_wrap=True)
        losses = swept.page.with_suffix(".npz")
        console.print(f"losses   {losses}", highlight=False, soft_wrap=True)


def swept_as_json(swept: SweepResult) -> dict[str, Any]:
    """A sweep as plain values: medians over seeds, null where that is infinite."""
    variants = [
        {
            "identity": variant.experiment.identity,
            "settings": {setting.path: setting.value for setting in variant.settings},
            "final": swept.final(place),
            "best": swept.best(place),
            "seeds": [
                attributes(record, "seed", "epochs")
                | {"ending": record.ending or None, "final": record.final(swept.loss)}
                for record in swept.of(place)
            ],
        }
        for place, variant in enumerate(swept.variants)
    ]
    head = attributes(swept, "name", "identity") | {"verdict": swept.sentence}
    rest = attributes(swept, "seconds", "repeated", "page", "loss", "ranking")
    return plain(head | rest | {"variants": variants})


# --- a range of learning rates, and a growing network -------------------------------------------


def lr_range_as_json(result: LrRange) -> dict[str, Any]:
    """A range of rates as plain values: null where a loss is infinite."""
    both = attributes(result, "steepest", "stable")
    rates = {name: attributes(rate, "estimate", "low", "high") for name, rate in both.items()}
    verdict = {"verdict": result.sentence, "warnings": result.warnings}
    arrays = attributes(result, "name", "steps", "rates", "losses", "start")
    return plain(arrays | rates | verdict)


def show_crawl(crawl: Crawl, console: Console) -> None:
    """A row for each size of network, and what it bought."""
    right = ("parameters", crawl.measure)
    table = plain_table("hidden layers", *right, "claim", right=right)
    marks = {"smallest": crawl.smallest, "enough": crawl.enough}
    for rung in crawl.rungs:
        held = {True: "held", False: "not held", None: ""}[rung.held]
        marked = ", ".join(word for word, one in marks.items() if one is rung)
        claim = f"{held}  ← {marked}" if marked else held
        table.add_row(rung.name, f"{rung.parameters:,}", number(finite(rung.loss)), claim)
    console.print(table)
    console.print(f"\n{crawl.name}: {crawl.sentence}", style="bold", highlight=False)


def crawl_as_json(crawl: Crawl) -> dict[str, Any]:
    """A crawl as plain values."""
    smallest = crawl.smallest.name if crawl.smallest else None
    sentences = {"smallest": smallest, "enough": crawl.enough.name, "verdict": crawl.sentence}
    return plain(attributes(crawl, "name", "measure") | {"sizes": crawl.rungs} | sentences)
