"""Torn pages and damaged files."""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

from benchmarks.torture.common import SMALL, SWEEP, Failures, called, results, written


def torn(count: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Pages cut or filled with zeros, as power loss leaves them: the run goes on to its losses."""
    failures: Failures = []
    path, whole = written(folder, SMALL), folder / "whole"
    called("run", path, "--logbook", whole)
    expected = results(whole)
    for number in range(count):
        logbook = folder / str(number)
        shutil.copytree(whole, logbook)
        (page, *_) = sorted(logbook.glob("*/*-seed0.json"))
        content = page.read_bytes()
        cut = draw.randrange(len(content))
        end = draw.choice((b"", b"/", b"// ", bytes(draw.randrange(1, 5000)), b"\n", b"// 3 0."))
        page.write_bytes(content[:cut] + end)
        code, said = called("run", path, "--logbook", logbook)
        log, _ = called("log", "--logbook", logbook)
        if code != 0 or log != 0 or results(logbook) != expected:
            failures.append(f"cut at {cut}, then {end[:8]!r}: run {code}, log {log}: {said[-300:]}")
        shutil.rmtree(logbook)
    return f"{count} torn pages: each readable, with the losses of the whole run", failures


def damaged(count: int, draw: random.Random, folder: Path) -> tuple[str, Failures]:
    """Files of every kind with a changed byte, cut, emptied or of zeros: none is believed."""
    failures: Failures = []
    whole, rows = folder / "whole", folder / "rows.csv"
    path, sweep = written(folder, SMALL), written(folder, SMALL | {"sweep": SWEEP}, "sweep")
    rows.write_text("x1,x2\n0,1\n1,1\n")
    questions = (
        ("run", path, "--json"),
        ("log", "--json"),
        ("sweep", sweep, "--json"),
        ("predict", path, rows, "--json"),
    )

    def answers(logbook: Path) -> list[tuple[int, Any]]:
        told = [called(*question, "--logbook", logbook) for question in questions]
        return [(code, said.replace(str(logbook), "")) for code, said in told]

    answers(whole)  # it trains, and answers what is asked from then on
    expected, kinds = answers(whole), {}
    files = [file for file in sorted(whole.rglob("*")) if file.is_file() and file.suffix != ".png"]
    told = 0
    for number in range(count):
        logbook = folder / str(number)
        shutil.copytree(whole, logbook)
        file = logbook / files[number % len(files)].relative_to(whole)
        kinds[file.suffix or file.name] = kinds.get(file.suffix or file.name, 0) + 1
        content = bytearray(file.read_bytes())
        change = draw.choice(("flip", "cut", "empty", "zeros", "digit"))
        place = draw.randrange(len(content)) if content else 0
        if change in ("flip", "digit") and content:
            content[place] ^= 1 << draw.randrange(8) if change == "flip" else 1
        cut = {"cut": content[:place], "empty": b"", "zeros": bytes(len(content))}
        file.write_bytes(cut.get(change, content))
        for question, (code, said), wanted in zip(
            questions, answers(logbook), expected, strict=True
        ):
            told += code == 2
            if code not in (0, 1, 2) or (code != 2 and not same(question[0], said, wanted[1])):
                failures.append(f"{file.name} {change} at {place}: {question[0]} {code}: {said}")
                failures.append(f"  instead of {wanted}")
        shutil.rmtree(logbook)
    parts = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return (
        f"{count} damaged files ({parts}); {told} answers refused, no other one changed",
        failures,
    )


def same(question: str, said: str, wanted: str) -> bool:
    """Whether an answer has the same numbers; what is skipped or trained again may be told."""
    one, other = (numbers_in(text) for text in (said, wanted))
    if question == "log" and one is not None and other is not None:
        # A page that is refused is missing, and what was trained again has another one.
        return all(any(alike(entry, each) for each in other) for entry in one)
    return alike(one, other)


def alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same but for the last digits of their numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return one == other


def numbers_in(text: str) -> Any:
    """The JSON of an answer, without what is told of times and paths."""
    lines = [line for line in text.splitlines() if line[:1] in "[{"]
    if not lines:
        return None
    content = json.loads(lines[-1])
    if isinstance(content, list):  # pages that were cut short are told, and have no verdict
        content = [entry for entry in content if entry.get("verdict")]
    return without_passing(content)


def without_passing(content: Any) -> Any:
    """JSON without times, paths, and the sentence that is made of both."""
    passing = {"seconds", "picture", "already_run", "page", "pages", "started", "verdict"}
    if isinstance(content, dict):
        return {k: without_passing(v) for k, v in content.items() if k not in passing}
    return [*map(without_passing, content)] if isinstance(content, list) else content
