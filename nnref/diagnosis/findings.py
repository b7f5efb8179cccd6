"""The result of a diagnosis: findings, upstream causes first, each symptom under its cause."""

import linecache
import math
import os
import platform
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from html import escape
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nnref.diagnosis.causes import CAUSES, EDITS, RANK
from nnref.diagnosis.proof import Proof
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError

LINE = 200  # characters of an exception that are shown
BESIDE = re.compile(r"[,;] | from | \(")  # between a line of a program and what else says where


@dataclass(frozen=True)
class Finding:
    """One cause: where it is, how it was measured, and what to type.

    `severity` is "fault" (it keeps the network from learning) or "note" (worth knowing). `where`
    is a part of the network or the data, a line as `file:line`, or both, one behind the other.
    `healthy` and `remedy` are those of the cause where a check has nothing more specific.
    `confidence` in [0, 1] says how sure the check is that this is the cause. `proof` says how far
    the same training goes with one thing changed, where that was tried.

    Raises:
        ValueError: for a cause that is no word of the vocabulary.
    """

    cause: str
    severity: Literal["fault", "note"]
    where: str
    evidence: str
    measured: str = ""
    healthy: str = ""
    remedy: str = ""
    confidence: float = 1.0
    symptoms: tuple["Finding", ...] = ()
    proof: Proof | None = None

    def __post_init__(self) -> None:
        if self.cause not in CAUSES:
            raise ValueError(f"{self.cause!r} is no word of the vocabulary")
        for name in ("healthy", "remedy"):
            default = getattr(CAUSES[self.cause], name)
            object.__setattr__(self, name, getattr(self, name) or default)

    @property
    def edit(self) -> str:
        """The change of the training that the proof made; "" where there is none."""
        return "" if self.proof is None else self.proof.edit

    @property
    def effect(self) -> float | None:
        """The skill that this change reached."""
        return self.proof.after[0] if self.proof is not None and self.edit else None


def fault(cause: str, where: str, evidence: str, measured: str = "", **specific: Any) -> Finding:
    """A finding that keeps the network from learning; `specific` are fields of `Finding`."""
    return Finding(cause, "fault", where, evidence, measured, **specific)


def note(cause: str, where: str, evidence: str, measured: str = "", **specific: Any) -> Finding:
    """A finding that is worth knowing; `specific` are fields of `Finding`."""
    return Finding(cause, "note", where, evidence, measured, **specific)


def as_note(finding: Finding) -> Finding:
    """The same finding as a note."""
    return replace(finding, severity="note")


def as_fault(finding: Finding) -> Finding:
    """The same finding as a fault."""
    return replace(finding, severity="fault")


@dataclass(frozen=True)
class Findings:
    """All that a diagnosis says: faults and notes, what was checked, what could not be.

    `learns` says whether the network learns as well as simple models and its own trials do. There
    are three answers: it does; it does not, and a fault says why; it does not, and no cause of it
    was found. None stands for a look at so little that it cannot be told. `mistakes` are nnref's
    own: checks that raised, and that the answer goes on without.
    """

    found: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    measures: dict[str, Any] = field(default_factory=dict)
    learns: bool | None = None
    mistakes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Finding:
        return self.found[index]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that keep the network from learning, the most upstream first."""
        return tuple(finding for finding in self.found if finding.severity == "fault")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings that do not."""
        return tuple(finding for finding in self.found if finding.severity == "note")

    @property
    def exit_code(self) -> int:
        """0 for a network that learns, 1 for one that does not, 3 for a mistake in nnref itself."""
        if self.mistakes:
            return 3
        return 1 if self.faults or self.learns is False else 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps`: numbers that JSON does not have become words."""
        return plain(asdict(self))

    def to_html(self, path: str | Path) -> Path:
        """One page that needs no network, written to `path`."""
        page = Path(path)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(self.page(), encoding="utf-8")
        return page

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = [Text(self.headline, style="bold")]
        parts += [Text(line) for line in self.advice]
        for number, finding in enumerate(self.faults, 1):
            parts += [Text(), *shown(finding, f"{number}. ")]
        for title, notes in self.sections:
            parts += [Text(), Text(title, style="bold")]
            parts += [line for finding in notes for line in noted(finding)]
        if self.figures:
            parts += [Text(), Text(FIGURES, style="bold")]
            parts += [paragraph(f"{word:<17}", line) for word, line in self.figures]
        if self.tried:
            parts += [Text(), Text(TRIED, style="bold")]
            parts += [paragraph(f"{bar(skill)} {skill:z5.2f}  ", w) for w, skill in self.tried]
        if self.checked:
            parts += [Text(), paragraph("checked: ", ", ".join(self.checked), style="dim")]
        if self.impossible:
            parts.append(paragraph("not possible: ", "; ".join(self.impossible), style="dim"))
        for line in self.mistakes:
            parts += [Text(), Text(f"{MISTAKE} {line}", style="bold")]
        return Group(*parts)

    @property
    def sections(self) -> list[tuple[str, tuple[Finding, ...]]]:
        """The notes under two titles: those about rows that were not trained on stand last."""
        others = tuple(note for note in self.notes if note.cause in OTHER_ROWS)
        rest = tuple(note for note in self.notes if note.cause not in OTHER_ROWS)
        titled = (("Worth knowing, no fault:", rest), ("On rows it was not trained on:", others))
        return [(title, notes) for title, notes in titled if notes]

    @property
    def figures(self) -> list[tuple[str, str]]:
        """The skill of the network beside that of simple models, as a table of words and lines."""
        measures = self.measures
        if "skill on training rows" not in measures:
            return []

        def listed(skills: dict[Any, float], word: str = "{}") -> str:
            return ", ".join(f"{word.format(name)} {skill:z.2f}" for name, skill in skills.items())

        def also(words: str, key: str) -> str:
            return "" if measures.get(key) is None else words.format(measures[key])

        reached, simple = measures["skill on training rows"], measures["skill of simple models"]
        best = max(simple.values(), default=0.0)
        first = next((name for name, skill in simple.items() if skill >= 0.95 * best), "")
        answer = f"simple models find it, {first} first, and this network does not"
        if best < bound("signal"):
            answer = "simple models find nothing in rows held out"
        elif reached >= bound("learned") * best:
            answer = "it is learned, as far as simple models find it"
            if self.faults and best < bound("failed") * reached:
                answer = "more than simple models find, and this network could learn more"
        lines = {
            "to be learned": answer if simple else "",
            "this network": f"{reached:z.2f} on its training rows"
            + also(", {:z.2f} on the validation rows", "skill on validation rows"),
            "simple models": (listed(simple) + ", on rows held out" if simple else "")
            + also("; {:z.2f} of shuffled targets", "skill of simple models on shuffled targets"),
            "one batch alone": listed(measures["skill on one batch by its rows"], "{} rows"),
            "loss": f"{measures['first loss']:z.3g} at first, {measures['last loss']:z.3g} after "
            f"{measures['steps']} steps"
            + also("; {:z.3g} of the best constant answer", "loss of the best constant answer"),
            "clipped": also("{:.0%} of the steps", "share of clipped steps"),
        }
        return [(word, line) for word, line in lines.items() if line]

    @property
    def trials(self) -> dict[str, float]:
        """The skill of each further run that was made, by what was changed in it."""
        return self.measures.get("trials", {})

    @property
    def tried(self) -> list[tuple[str, float]]:
        """The further runs that were made, in words, and the skill of each; the best ones first."""
        trials = self.trials
        return sorted(((EDITS[name], skill) for name, skill in trials.items()), key=lambda t: -t[1])

    @property
    def headline(self) -> str:
        """The whole answer in one sentence."""
        helps = any(finding.effect is not None for finding in self.notes)
        if not self.faults and self.learns is False and helps:
            return "This network learns less than it could: what helps stands below."
        if not self.faults and self.learns is False:
            return "This network does not learn as it could, and the cause was not found."
        if not self.faults and self.mistakes and self.learns is None:
            return "nnref could not look at this network, by a mistake of its own."
        if not self.faults:
            if self.learns:
                return "It learns: nothing was found that keeps this network from learning."
            return (
                "Nothing was found that keeps this network from learning; whether it learns was "
                "not measured."
            )
        first = self.faults[0]
        rest = len(self.faults) - 1
        more = f", and {rest} more fault{'s' * (rest > 1)}" if rest else ""
        return f"This network does not learn as it could: {CAUSES[first.cause].sentence}{more}."

    @property
    def advice(self) -> list[str]:
        """Where to look next, where a network does not learn and no cause of it was found."""
        trials = self.measures.get("trials", {})
        if self.faults or self.learns is not False or not trials:
            return []
        reached = max(self.measures["skill on training rows"], 0.0)
        lines = []
        name = max((n for n in trials if n not in OTHERS), key=trials.__getitem__, default="")
        if name and trials[name] > reached + bound("gap"):
            lines.append(f"What came closest: {EDITS[name]} it reaches {trials[name]:z.2f}.")
        task = trials.get("another task")
        if task is not None and task > bound("good"):
            lines.append(
                f"It learns a simple task of the same shapes ({task:z.2f}): loss, optimizer and "
                "layers work. Look at what the targets are, and at what of the inputs tells them."
            )
        elif task is not None and not lines:
            lines.append(
                f"It does not learn a simple task of the same shapes either ({task:z.2f}): look at "
                "the layers, the loss and the optimizer before the data."
            )
        layers = max((trials[n] for n in trials if n.startswith("everything")), default=None)
        if layers is not None and layers <= reached + bound("gap"):
            lines.append(
                "With loss, optimizer, start and scales exchanged for trusted ones nothing "
                f"changes ({layers:z.2f}): the layers themselves do not let it through."
            )
        return lines

    def page(self) -> str:
        """The whole answer as one HTML page that needs nothing else."""
        # The wing of reports stands above this one; it is asked by its name.
        return import_module("nnref.report.page.about_diagnoses").page_of(self)

    def _repr_html_(self) -> str:
        # A frame keeps the styles of the page and those of the notebook apart; without a base, a
        # link inside it would lead to a place of the notebook.
        page = self.page().replace("<head>", "<head><base href='about:srcdoc'>", 1)
        return (
            f"<iframe srcdoc='{escape(page)}' title='{escape(self.headline)}' "
            f"style='width:100%;height:44rem;border:0'><pre>{escape(str(self))}</pre></iframe>"
        )


WIDTH = 80
# Further runs that are no repair of the network.
OTHERS = {"another task", "same width", "same width x10", "wider", "wider x10"}
PACKAGE = str(Path(__file__).parents[1]) + os.sep
MISTAKE = "A mistake in nnref, not in your program; please report it:"
# Causes that are about rows which were not trained on.
OTHER_ROWS = {"overfitting", "repeated_rows", "leaked_targets", "unshuffled_split"}
TRIED = "The same training with one thing changed:"
FIGURES = "What was reached, from 0 (the best constant answer) to 1 (perfect):"


def bar(skill: float) -> str:
    """A skill from 0 to 1 as a bar of ten characters."""
    return f"{'█' * round(10 * min(max(skill, 0.0), 1.0)):<10}"


def details(finding: Finding) -> list[tuple[str, str]]:
    """The fields of a finding that are not empty, without its evidence, in the report's order."""
    names = ("where", "measured", "healthy", "remedy", "proof")
    return [(name, str(value)) for name in names if (value := getattr(finding, name))]


class CodeLine(NamedTuple):
    """A line of the user's own program."""

    file: str
    number: int
    text: str

    def around(self, lines: int = 2) -> str:
        """The line, marked, and those about it, with their numbers."""
        shown = range(max(self.number - lines, 1), self.number + lines + 1)
        text = {number: linecache.getline(self.file, number).rstrip() for number in shown}
        marks = {number: "→" if number == self.number else " " for number in shown}
        return "\n".join(f"{marks[n]} {n:>4}  {text[n]}".rstrip() for n in shown)


def code_line(where: str) -> CodeLine | None:
    """The first line of a program that a finding's `where` names as `file:line`, None for none.

    A cell of a notebook has lines as a file does.
    """
    for place in BESIDE.split(where):
        file, _, number = place.rpartition(":")
        if file and number.isdigit():
            linecache.checkcache(file)
            text = linecache.getline(file, int(number)).rstrip("\n")
            if text.strip():
                return CodeLine(file, int(number), text)
    return None


def paragraph(word: str, text: str, style: str = "") -> Any:
    """Text beside a word, wrapped under itself."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=0)
    table.add_column(width=len(word), no_wrap=True)
    table.add_column()
    table.add_row(Text(word, style=style), Text(text, style=style))
    return table


def shown(finding: Finding, number: str) -> list[Any]:
    """A fault as lines of a terminal."""
    from rich.padding import Padding
    from rich.text import Text

    sure = f" ({finding.confidence:.0%} sure)" if finding.confidence < 1 else ""
    head = Text.assemble(
        number, (CAUSES[finding.cause].sentence, "bold red"), f"  [{finding.cause}]{sure}"
    )
    lines: list[Any] = [head, Padding(Text(finding.evidence), (0, 0, 0, 3))]
    for word, line in details(finding):
        lines.append(Padding(paragraph(f"{word:<10}", line), (0, 0, 0, 3)))
    if finding.symptoms:
        lines.append(Padding(Text("and, as it seems, because of it:"), (0, 0, 0, 3)))
        for symptom in finding.symptoms:
            sentence = f"{CAUSES[symptom.cause].sentence}: {symptom.evidence}"
            lines.append(Padding(paragraph("- ", sentence), (0, 0, 0, 3)))
    return lines


def noted(finding: Finding) -> list[Any]:
    """A note as lines of a terminal."""
    where = f" ({finding.where})" if finding.where else ""
    proof = f"; {finding.proof}" if finding.proof else ""
    return [paragraph("- ", f"{finding.evidence}{proof}{where} [{finding.cause}]")]


def plain(value: Any) -> Any:
    """A value without what JSON does not have."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def in_a_line(error: Exception) -> str:
    """An exception of the user's in a line: its kind, and the first line of its message."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:LINE]


def is_mistake(error: Exception) -> bool:
    """Whether a line of nnref itself has raised, and not a function that the user gave.

    A `UserError` says what cannot be asked, and is none.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and frames[-1].filename.startswith(PACKAGE)
    return ours and not isinstance(error, UserError)


def mistake(error: Exception) -> str:
    """A mistake of nnref's in a line: what was raised, where, and under which versions."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(PACKAGE)]
    where = f" in {ours[-1].filename.removeprefix(PACKAGE)}:{ours[-1].lineno}" if ours else ""
    return (
        f"{in_a_line(error)}{where} (nnref {version('nnref')}, JAX {version('jax')}, "
        f"Python {platform.python_version()})"
    )


def upstream(findings: Iterable[Finding]) -> list[Finding]:
    """Faults before notes, causes before what they bring about, surer ones first among equals."""
    return sorted(findings, key=lambda f: (f.severity != "fault", RANK[f.cause], -f.confidence))


def under_their_cause(findings: Iterable[Finding]) -> list[Finding]:
    """The most upstream fault, with the others as its symptoms."""
    ordered = upstream(findings)
    if not ordered:
        return []
    # An output that can be learned with is not what keeps a dead signal from arriving.
    soft = ordered[0].confidence < bound("soft") and ordered[0].cause.startswith("output")
    dead = [finding for finding in ordered if finding.cause == "initialization_too_small"]
    if soft and dead:
        ordered = [*dead, *(finding for finding in ordered if finding not in dead)]
    others = [finding for finding in ordered[1:] if finding.cause != ordered[0].cause]
    return [replace(ordered[0], symptoms=tuple(others[:3]))]
