"""The subjects of a report: experiments, each with the pages of its seeds."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from nnref.errors import UserError, nearest
from nnref.experiment.claims import TwinClaim
from nnref.experiment.experiment import Experiment, read
from nnref.logbook.index import attempts, entries, settings_of
from nnref.logbook.pages import Page, SweepPage, page_at, read_page
from nnref.logbook.verdicts import Record, judge, padded
from nnref.report.page.blocks import Section, Table, Tone
from nnref.studies.resuming import record_of
from nnref.studies.run import Trained

SPLITS = {"train": "training", "valid": "validation"}
Network = Trained | str  # of an experiment, or why there is none
FACTS = ("started", "ended", "versions", "machine", "device", "commit", "data", "together")
OUTCOMES: dict[Tone, str] = {"good": "the claim held", "bad": "the claim did not hold"}
MOST = 8  # experiments that one page shows: as many as there are colours


class ExperimentPages:
    """An experiment and the pages of its seeds, ordered by seed."""

    def __init__(self, pages: Sequence[Page]):
        self.pages = sorted(pages, key=lambda page: (page.seed, page.path.name))
        self.name = pages[0].name
        self.identity = pages[0].facts.get("identity", "")
        self.label = self.name  # with the identity where another one has the same name

    @property
    def experiment(self) -> Experiment:
        """The experiment of its first page."""
        return self.pages[0].experiment

    @cached_property
    def settings(self) -> dict[str, object]:
        """Flat, as the index has them."""
        return settings_of(self.pages[0].frozen)

    @cached_property
    def records(self) -> list[Record]:
        """The records of the pages that have a line of measures."""
        return [record_of(page) for page in self.pages if page.epochs >= 0]

    @property
    def runs(self) -> list[str]:
        """A name for each page."""
        seeds = [page.seed for page in self.pages]
        return [
            f"seed {seed}" + (f" ({page.path.stem})" if seeds.count(seed) > 1 else "")
            for seed, page in zip(seeds, self.pages, strict=True)
        ]

    @cached_property
    def history(self) -> dict[str, np.ndarray]:
        """Measure -> (pages, epochs + 1); NaN where a page has no value, all NaN where no line."""
        length = max((page.epochs for page in self.pages), default=-1) + 1
        names = dict.fromkeys(n for page in self.pages if page.epochs >= 0 for n in page.history)
        nothing = np.full(0, np.nan, np.float32)
        return {
            name: np.stack([padded(p.history.get(name, nothing), length) for p in self.pages])
            for name in names
        }

    @property
    def loss(self) -> str:
        """The loss that counts: the validation loss, where there is one."""
        return "valid_loss" if "valid_loss" in self.history else "train_loss"

    @cached_property
    def outcome(self) -> tuple[Tone, str, str]:
        """How it ended: whether well, in a word, in a sentence."""
        ended = [page for page in self.pages if page.complete]
        if len(ended) < len(self.pages):
            cut = [page for page in self.pages if not page.complete]
            runs = f"{len(cut)} of {len(self.pages)} runs" if len(self.pages) > 1 else "the run"
            last = max(0, *(page.epochs for page in cut))
            state = f"{runs} went on to epoch {last} of {self.experiment.epochs} and has no verdict"
            return "plain", "not ended", f"{state}: it was cut short, or goes on still"
        verdicts = {page.facts.get("all_seeds", "") for page in ended}
        claims = self.experiment.claim
        twins = any(isinstance(claim, TwinClaim) for claim in claims)
        if len(verdicts) > 1 and not twins:  # seeds of several calls: judged together only now
            sentence = judge(self.experiment, self.records, lambda _: {}).sentence
        else:
            newest = max(ended, key=lambda page: page.facts.get("ended", ""))
            sentence = newest.facts.get("all_seeds") or newest.facts["verdict"]
        for tone, outcome in OUTCOMES.items():
            if sentence.startswith(outcome):
                return tone, outcome, sentence.partition(": ")[2]
        if any(record.diverged for record in self.records):
            return "bad", "diverged", sentence
        return "plain", "ended", sentence


def subjects_of(words: Sequence[str], logbook: Path) -> tuple[list[ExperimentPages], list[str]]:
    """The experiments that pages, names, identities and experiment files stand for.

    Returns:
        A subject for each experiment, and in words what was left out.

    Raises:
        UserError: for a word that is none of these, or an experiment that was never run.
    """
    pages: dict[Path, Page] = {}
    omissions: list[str] = []
    for word in words:
        page = page_at(Path(word))
        matches = [page] if page is not None else pages_of(word, logbook, omissions)
        pages |= {match.path.resolve(): match for match in matches}
    groups: dict[tuple[str, str], list[Page]] = {}
    for page in pages.values():
        groups.setdefault((page.name, page.facts.get("identity", "")), []).append(page)
    shown = [ExperimentPages(group) for group in groups.values()]
    if len(shown) > MOST:
        omissions.append(f"of {len(shown)} experiments the {MOST} last ones are shown")
        shown = shown[-MOST:]
    names = [one.name for one in shown]
    for one in shown:
        if names.count(one.name) > 1:
            one.label = f"{one.name} {one.identity}"
    return shown, omissions


def pages_of(word: str, logbook: Path, omissions: list[str]) -> list[Page]:
    """The last page of each seed, for a name, an identity or an experiment file.

    Sentences about pages that were left out are added to `omissions`.

    Raises:
        UserError: where there are none.
    """
    known, skipped = entries(logbook)
    omissions += [line for line in skipped if line not in omissions]
    is_long = len(word) >= 4  # a shorter word would be the start of an identity by chance
    wanted = [e for e in known if word == e.name or (is_long and e.identity.startswith(word))]
    if not wanted and Path(word).is_file():
        identity = read(word).identity
        wanted = [entry for entry in known if entry.identity == identity]
    if not wanted:
        names = sorted({entry.name for entry in known})
        raise UserError(
            f'"{word}" is no page, and {logbook} has no run of that name'
            f"{nearest(word, names)}; it has {', '.join(names) or 'none'}"
        )
    tried = attempts(wanted)
    if len(tried) > MOST:
        omissions.append(f"of {len(tried)} experiments called {word} the {MOST} last ones")
    last = [entry for attempt in tried[-MOST:] for entry in attempt.entries]
    return [read_page(logbook / entry.page) for entry in last]


def in_words(name: str) -> str:
    """A measure as a reader would call it."""
    split, _, rest = name.partition("_")
    return f"{SPLITS[split]} {rest.replace('_', ' ')}" if split in SPLITS else name


def notes_section(what: str, rows: Sequence[Sequence[str]]) -> Section | None:
    """Remarks that were added to pages; `what` heads the column that says to which."""
    if not rows:
        return None
    return Section("notes", "Notes", [Table("remarks", [what, "remark"], rows, numbers=False)])


def machine_section(shown: Sequence[tuple[str, Sequence[Page | SweepPage]]]) -> Section:
    """Versions, machine, time and data as the pages have them: a column for each label."""
    rows = []
    for key in FACTS:
        cells = []
        for _, pages in shown:
            facts = list(dict.fromkeys(page.facts.get(key, "–") for page in pages))
            more = f" and {len(facts) - 3} others" if len(facts) > 3 else ""
            cells.append("; ".join(facts[:3]) + more)
        if any(cell != "–" for cell in cells):
            rows.append([{"together": "seeds in one program"}.get(key, key), *cells])
    columns = ["", *(label for label, _ in shown)]
    table = Table("versions and machine", columns, rows, numbers=False)
    return Section("machine", "Versions and machine", [table])
