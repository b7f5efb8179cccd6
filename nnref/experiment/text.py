"""The text of an experiment file: strict JSON with whole-line comments, and its keys' lines."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from nnref.errors import UserError, nearest


def contents(text: str) -> dict[str, Any]:
    """What stands in the text of a file, comments left out; a UserError for no JSON object."""
    text = blank_comments(text)
    try:
        content = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_twice)
    except json.JSONDecodeError as error:
        raise UserError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except GivenTwice as error:
        raise UserError("\n".join(locate(text)[1]) or str(error)) from None
    except UserError:
        raise
    except RecursionError:
        raise UserError("an experiment has a few levels of braces, this has hundreds") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise UserError("a number of thousands of digits given; write a smaller one") from None
    if not isinstance(content, dict):
        raise UserError("an experiment is a JSON object: { ... }")
    return content


def read_text(path: Path) -> str:
    """The text of a file; a UserError says that it is not there, or has no text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise UserError(f"{path}: {reason}{others(path)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file") from None


def experiments_folders() -> list[Path]:
    """Where experiments are looked for by name: `experiments/` here, then those that nnref brings.

    The wheel has them inside the package; a checkout, beside it.
    """
    package = Path(__file__).parents[1]
    places = [package / "experiments", package.parent / "experiments"]
    brought = next((place for place in places if place.is_dir()), places[0])
    here = Path("experiments")
    if not here.is_dir():
        return [brought]
    return [here] if here.resolve() == brought else [here, brought]


def located(path: str | Path) -> Path:
    """The file of an experiment: the path itself, or by a bare name the one that is found so."""
    path = Path(path)
    if path.suffix or path.exists() or path.parent != Path("."):
        return path
    files = [folder / f"{path}.json" for folder in experiments_folders()]
    return next((file for file in files if file.exists()), path)


def in_file(path: Path, message: str) -> str:
    """Lines about a file, each with its path."""
    return "\n".join(f"{path}: {line}" for line in message.split("\n"))


def others(path: Path) -> str:
    """The nearest name to that of a missing file, and the names of the files beside it."""
    stems = sorted(p.stem for p in path.parent.glob("*.json") if p.stem != "schema")
    listed = f"\nexperiments in {path.parent}: {', '.join(stems)}" if stems else ""
    return nearest(path.stem, stems) + listed


def blank_comments(text: str) -> str:
    """Whole-line comments emptied, so that the numbers of the lines stay right."""
    return "\n".join("" if line.lstrip().startswith("//") else line for line in text.split("\n"))


def refuse_constant(word: str) -> None:
    raise UserError(f"{word} is no JSON number; give a finite one")


class GivenTwice(UserError):
    """A key that stands twice in one object: JSON readers would silently take the last."""


def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        raise GivenTwice(f'"{again}" is given twice in one object; keep one')
    return content


def locate(text: str) -> tuple[dict[str, int], list[str]]:
    """The line of every path, and the paths given twice: JSON read as the YAML that it also is."""
    text = blank_comments(text)
    lines: dict[str, int] = {}
    twice: list[str] = []

    def visit(node: yaml.Node | None, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner, line = f"{path}.{key.value}".lstrip("."), key.start_mark.line + 1
                if inner in lines:
                    where = f"{inner} (line {line}): given twice, also in line {lines[inner]}"
                    twice.append(f"{where}; keep one")
                lines[inner] = line
                visit(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[f"{path}.{index}"] = value.start_mark.line + 1
                visit(value, f"{path}.{index}")

    try:
        visit(yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader), "")
    except (yaml.YAMLError, RecursionError):
        pass  # json.loads says what is wrong; without it, errors merely lack their line
    return lines, twice


def as_text(content: dict[str, Any]) -> str:
    """An experiment as the text of a file, in which what is short stands on one line."""

    def on_one_line(innermost: re.Match[str]) -> str:
        joined = " ".join(innermost[0].split())
        short = joined[0] + joined[1:-1].strip() + joined[-1]
        return short if len(short) <= 80 else innermost[0]

    return re.sub(r"[{[]\s+[^][{}]*[]}]", on_one_line, json.dumps(content, indent=2)) + "\n"


def set_path(content: dict[str, Any], path: str, value: Any) -> None:
    """Set `a.b.c` in nested dicts; a component given by its bare name opens up."""
    *parents, last = path.split(".")
    for depth, key in enumerate(parents, 1):
        inner = content.get(key) if content.get(key) is not None else {}
        if isinstance(inner, str):
            inner = {"name": inner}
        if not isinstance(inner, dict):
            raise UserError(
                f"{path}: {'.'.join(parents[:depth])} is {json.dumps(inner)}, it has no keys"
            )
        content[key] = content = inner
    content[last] = value
