"""The logbook as a whole: what was run, how it ended, and what is nearest to a new attempt.

The pages alone are the truth. Beside them `index.json` keeps one entry for each, so that thousands
are listed at once; what is missing there or older than its page is read from the page.
"""

import fcntl
import json
import math
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

from nnref.errors import UserError, nearest
from nnref.logbook.pages import Page, SweepPage, digest, page_in, read_page

FILE = "index.json"
FORMAT = 3
# Keys of a file that are no settings.
NO_SETTINGS = ("about", "claim", "seeds", "sweep", "devices", "shard", "$schema")


@dataclass(frozen=True)
class Entry:
    """What the index knows of a page. A sweep has one entry for all its runs.

    `final` has every measure of the network that the run kept; `loss` names the one that counts,
    the validation loss where there is one. Measures that are NaN are None.
    """

    page: str  # path below the logbook
    name: str
    identity: str
    seed: int | None  # of a run
    started: str
    epochs: int
    loss: str
    best: float | None  # lowest value of `loss`
    final: dict[str, float | None] = field(repr=False)
    ending: str = ""
    verdict: str = ""  # empty where the run was cut short
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, repr=False)
    variants: int = 0  # number of them in a sweep
    seeds: int = 1  # number of them for each variant of a sweep

    @property
    def outcome(self) -> str:
        """How it ended, in a few words."""
        if not self.verdict:
            return "cut short" if self.variants else f"cut short after epoch {self.epochs}"
        return self.ending or at_best(self.loss, self.final.get(self.loss), self.best)

    def value(self, key: str) -> Any:
        """A setting by its path, a measure, `best_` and a measure, or a field of the entry."""
        if key in self.settings:
            return self.settings[key]
        if key in self.final:
            return self.final[key]
        return self.best if key == f"best_{self.loss}" else getattr(self, key, None)

    @property
    def keys(self) -> list[str]:
        """The keys for which `value` may have a value."""
        fields = ["name", "identity", "seed", "seeds", "variants"]
        fields += ["started", "epochs", "ending", "verdict", "page"]
        return [*fields, *self.final, f"best_{self.loss}", *self.settings]


def settings_of(text: str) -> dict[str, Any]:
    """The settings of an experiment file or a page, as `{"optimizer.name": "sgd", ...}`."""
    content = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    return flat({key: value for key, value in content.items() if key not in NO_SETTINGS})


def flat(content: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A nested mapping as one that maps paths to values: `{"optimizer.name": "sgd"}`."""
    leaves: dict[str, Any] = {}
    for key, value in content.items():
        leaves |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return leaves


def entry_of(page: Page, shared: dict[str, Any]) -> Entry:
    """What the index keeps of the page of a run."""
    loss = "valid_loss" if "valid_loss" in page.history else "train_loss"
    # As the page has them: 0.3, not the float64 nearest to float32's 0.3.
    known = {name: [float(str(v)) for v in values] for name, values in page.history.items()}
    kept = int(page.facts["kept"]) if "kept" in page.facts else None
    diverged = page.facts.get("ending", "").startswith("diverged")
    ends = {n: values if kept is None else values[kept : kept + 1] for n, values in known.items()}
    final = {name: None if diverged else last(values) for name, values in ends.items()}
    final |= {key: float(v) for key, v in page.facts.items() if key.startswith("test_")}
    losses = [value for value in known.get(loss, []) if math.isfinite(value)]
    return Entry(
        **shared,
        seed=int(re.findall(r"-seed(\d+)", shared["page"])[-1]),
        epochs=max(0, page.epochs),
        loss=loss,
        best=min(losses, default=None),
        final=final,
        ending=page.facts.get("ending", ""),
    )


def entry_of_sweep(page: SweepPage, shared: dict[str, Any]) -> Entry:
    """What the index keeps of the page of a sweep: its losses are those of the best variant."""
    loss = page.loss
    lines = [line for line in page.variants if line[loss] is not None]
    first = min(lines, key=lambda line: line[loss], default={})
    counts = [int(number) for number in re.findall(r"\d+", page.facts.get("runs", "0 0"))]
    return Entry(
        **shared,
        seed=None,
        epochs=shared["settings"].get("epochs", 0),
        loss=loss,
        best=first.get(f"best_{loss}"),
        final={loss: first.get(loss)},
        variants=counts[0],
        seeds=counts[1],
    )


def last(values: Sequence[float]) -> float | None:
    """The last value that was measured; None where there is none, or it is not finite."""
    measured = [value for value in values if not math.isnan(value)]
    return measured[-1] if measured and math.isfinite(measured[-1]) else None


def entries(logbook: Path) -> tuple[list[Entry], list[str]]:
    """An entry for every run of a logbook, oldest first, and what was skipped, in words.

    Raises:
        UserError: where there is no such folder.
    """
    indexed, skipped = everything(logbook)
    return [entry for entry in indexed if not entry.variants], skipped


def everything(logbook: Path) -> tuple[list[Entry], list[str]]:
    """An entry for every page of a logbook, oldest first, and what was skipped, in words.

    Raises:
        UserError: where there is no such folder.
    """
    if not logbook.is_dir():
        raise UserError(f"{logbook}: no such folder; a logbook begins with the first `nnref run`")
    known = read_index(logbook / FILE)
    rows: dict[str, dict[str, Any]] = {}
    skipped = []
    for place, stat in files(logbook):
        path, stamp = logbook / place, [stat.st_mtime_ns, stat.st_size]
        if place in known and known[place]["stamp"] == stamp:
            rows[place] = known[place]
            continue
        try:
            entry = read_entry(path, place)
        except UserError as error:
            skipped.append(str(error))
        except (OSError, ValueError, IndexError) as error:  # half a page, or something else
            skipped.append(f"{path}: not a whole page ({error})")
        else:
            rows[place] = {"stamp": stamp, "entry": asdict(entry)}
    if rows != known:
        write_index(logbook / FILE, rows)
    indexed = [
        Entry(**row["entry"] | {"notes": tuple(row["entry"]["notes"])}) for row in rows.values()
    ]
    return sorted(indexed, key=lambda entry: (entry.started, entry.page)), skipped


def read_entry(path: Path, place: str) -> Entry:
    """What the index keeps of the page in a file; refused where it is none."""
    page = page_in(path, path.read_text(encoding="utf-8"))
    if page is None:
        raise UserError(f"{path}: not a page of a logbook")
    shared: dict[str, Any] = {
        "page": place,
        "name": page.name,
        "notes": tuple(page.notes),
        "settings": settings_of(page.frozen),
        **{key: page.facts.get(key, "") for key in ("identity", "started", "verdict")},
    }
    return entry_of_sweep(page, shared) if isinstance(page, SweepPage) else entry_of(page, shared)


def files(logbook: Path) -> Iterable[tuple[str, os.stat_result]]:
    """Every file that may be a page, with its size and time."""
    for folder in os.scandir(logbook):
        if folder.is_dir():
            for file in os.scandir(folder.path):
                if file.name.endswith(".json") and file.is_file():
                    yield f"{folder.name}/{file.name}", file.stat()


def read_index(path: Path) -> dict[str, dict[str, Any]]:
    """What the index says; nothing where it is missing, damaged or of another version."""
    try:
        index = orjson.loads(path.read_bytes())
        whole = index["format"] == FORMAT and index["sha256"] == digest(
            orjson.dumps(index["pages"])
        )
        return index["pages"] if whole else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_index(path: Path, rows: Mapping[str, Any]) -> None:
    """Write index.json whole or not at all; nothing where the folder is read-only."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        seal = digest(orjson.dumps(rows))
        partial.write_bytes(orjson.dumps({"format": FORMAT, "sha256": seal, "pages": rows}))
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)


# --- choosing -----------------------------------------------------------------------------------


COMPARISONS = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
CONDITION = re.compile(r"\s*([\w.$]+)\s*(<=|>=|!=|<|>|==?)\s*(.*?)\s*")


def where(entries: Sequence[Entry], conditions: Sequence[str]) -> list[Entry]:
    """The entries for which all conditions hold, such as `optimizer.name=padam`, `valid_loss<0.1`.

    A measure means its value in the end, `best_valid_loss` the lowest. What an entry lacks, or was
    not finite, meets no condition but `!=`.

    Raises:
        UserError: for a condition that cannot be read, or a key that no entry has.
    """
    for condition in conditions:
        match = CONDITION.fullmatch(condition)
        if match is None:
            raise UserError(
                f'--where "{condition}": a key, one of = != < <= > >=, and a value, '
                'as in "valid_loss<0.1"'
            )
        key, sign, text = match.groups()
        known_key(entries, key, "--where")
        expected = json_or_text(text)
        compare = COMPARISONS["=" if sign == "==" else sign]
        entries = [entry for entry in entries if meets(entry.value(key), compare, expected)]
    return list(entries)


def meets(value: Any, compare: Any, expected: Any) -> bool:
    """Whether a comparison holds; values that cannot be compared are merely different."""
    try:
        return compare(value, expected)
    except TypeError:
        return False


def json_or_text(text: str) -> Any:
    """What JSON reads in a text; the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def known_key(entries: Sequence[Entry], key: str, option: str) -> None:
    """Refuse a key that no entry has, and name the nearest."""
    keys = {key for entry in entries for key in entry.keys}
    if entries and key not in keys:
        hint = nearest(key, sorted(keys)) or f"; they have {', '.join(sorted(keys))}"
        raise UserError(f'{option}: no run has "{key}"{hint}')


def ordered(entries: Sequence[Entry], key: str | None, reverse: bool) -> list[Entry]:
    """Entries by a key, those without it last; by date where no key is given."""
    if key is None:
        return list(reversed(entries)) if reverse else list(entries)
    known_key(entries, key, "--sort")
    have = [entry for entry in entries if entry.value(key) is not None]
    try:
        have.sort(key=lambda entry: entry.value(key), reverse=reverse)
    except TypeError:
        have.sort(key=lambda entry: str(entry.value(key)), reverse=reverse)
    return have + [entry for entry in entries if entry.value(key) is None]


# --- comparing ----------------------------------------------------------------------------------


class KeyChange(NamedTuple):
    """One key that differs; a component with another name is one change, not one for each key."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key} {shown(self.before)} → {shown(self.after)}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[KeyChange]:
    """What differs between two settings; a key that one of the two lacks counts as null there."""
    paths = sorted(before.keys() | after.keys())
    differ = [path for path in paths if before.get(path) != after.get(path)]
    swapped = [path.removesuffix("name") for path in differ if path.endswith(".name")]
    return [
        KeyChange(path.removesuffix(".name"), before.get(path), after.get(path))
        for path in differ
        if not any(path.startswith(part) and path != f"{part}name" for part in swapped)
    ]


def shown(value: Any) -> str:
    """A setting as a file has it."""
    return value if isinstance(value, str) else json.dumps(value)


def number(value: float | None) -> str:
    """A value in four digits, - where there is none."""
    return "-" if value is None else f"{value:.4g}"


def median_or_none(values: Sequence[float | None]) -> float | None:
    """The median, a run without a finite value counting as infinitely bad; None for infinity."""
    value = median(math.inf if value is None else value for value in values)
    return value if math.isfinite(value) else None


def at_best(loss: str, final: float | None, best: float | None) -> str:
    """A loss in the end, and its lowest value where that is another one."""
    at_the_end = f"{loss} {number(final)}"
    same = number(best) == number(final)
    return at_the_end if same else f"{at_the_end}, {number(best)} at best"


class Attempt(NamedTuple):
    """All runs of one experiment."""

    entries: tuple[Entry, ...]  # one for each seed, oldest first

    @property
    def settings(self) -> dict[str, Any]:
        return self.entries[0].settings

    @property
    def best(self) -> float | None:
        """The median over its runs of the lowest loss."""
        return median_or_none([entry.best for entry in self.entries])

    @property
    def outcome(self) -> str:
        """How it ended, in a line."""
        runs, first = len(self.entries), self.entries[0]
        failed = [entry for entry in self.entries if entry.ending.startswith("diverged")]
        day = self.entries[-1].started[:10]
        if failed:
            share = "" if runs == 1 else f" ({len(failed)} of {runs} seeds)"
            return f"{failed[0].ending}{share} on {day}"
        if runs == 1:
            return f"{first.outcome} on {day}"
        final = median_or_none([entry.final.get(first.loss) for entry in self.entries])
        return f"{at_best(first.loss, final, self.best)}, median of {runs} seeds, on {day}"


def attempts(entries: Iterable[Entry]) -> list[Attempt]:
    """Entries put together by experiment, the oldest first; of each seed the last page."""
    groups: dict[str, dict[int | None, Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, {})[entry.seed] = entry
    return [Attempt(tuple(group.values())) for group in groups.values()]


def near(
    settings: Mapping[str, Any], entries: Iterable[Entry], most: int = 2, limit: int = 5
) -> list[tuple[list[KeyChange], Attempt]]:
    """The earlier attempts that differ in the fewest keys, the nearest and latest first.

    Args:
        settings: of the experiment in question, complete with its defaults.
        entries: of the logbook, oldest first.
        most: number of keys in which an attempt may differ.
        limit: number of attempts at most.

    Returns:
        For each attempt the changes that lead from it to `settings`.
    """
    apart = [
        (changes(attempt.settings, settings), attempt) for attempt in reversed(attempts(entries))
    ]
    close = [pair for pair in apart if 0 < len(pair[0]) <= most]
    return sorted(close, key=lambda pair: len(pair[0]))[:limit]


class Branch(NamedTuple):
    """An attempt in the tree of changes, with what led to it and what came of it."""

    attempt: Attempt
    changes: list[KeyChange]  # from the one above
    children: list["Branch"]


def tree(entries: Sequence[Entry]) -> Branch:
    """Attempts as a tree: each below the earlier attempt from which it differs in the fewest keys.

    Of several such attempts it is the one with the lowest loss. The entries, one or more, come
    oldest first.
    """
    first, *others = attempts(entries)
    nodes = [Branch(first, [], [])]
    for attempt in others:
        apart = [(changes(node.attempt.settings, attempt.settings), node) for node in nodes]
        led_here, above = min(apart, key=lambda pair: (len(pair[0]), loss_of(pair[1].attempt)))
        nodes.append(Branch(attempt, led_here, []))
        above.children.append(nodes[-1])
    return nodes[0]


def loss_of(attempt: Attempt) -> float:
    """The best loss, to sort by: infinity where there is none."""
    return math.inf if attempt.best is None else attempt.best


# --- remarks ------------------------------------------------------------------------------------


def is_being_written(path: Path) -> bool:
    """Whether a process holds the lock of a page, as the one does that writes it."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def note(path: Path, text: str, now: str) -> None:
    """Append a remark to a page, as a line of its own.

    Raises:
        UserError: for an empty remark, or where the page is none or cannot be written.
    """
    remark = " ".join(text.split())
    if not remark:
        raise UserError("an empty remark given; write what you want to remember")
    try:
        page = read_page(path)
        # While a run writes the page, its lines are whole, and it must not hear of a torn one.
        before = "" if is_being_written(path) else page.before_a_line
        with path.open("ab", buffering=0) as stream:
            stream.write(f"{before}// note: {now} {remark}\n".encode())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
