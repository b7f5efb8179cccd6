"""Parts of one's own in an experiment file: `"mine.py:Net"`, or `"optax:lamb"`.

A file is imported when an experiment names it, and not before. Its digest is part of the
experiment: a page keeps a copy of the source beside it, and is read with that copy.
"""

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from nnref.errors import UserError, nearest
from nnref.internals import parameters_of

PLACES: ContextVar[tuple[Path, ...]] = ContextVar("PLACES", default=(Path(),))
COPIES = "sources"  # the folder beside a page that holds what it names
OPTAX = "optax"
FILE = re.compile(r"[^:]+\.py:\w+")
# Arguments that training passes, so that they are no keys of a file: by name, and by place.
PASSED = {"rngs", "rng", "key", "inputs", "outputs", "parent"}
BY_PLACE = {"loss": 2, "activation": 1}
PLAIN = (bool, int, float, str)


class UserFile(NamedTuple):
    """A file of a user: where it stands, what it says, and what it defines."""

    path: Path
    text: str
    module: ModuleType


SOURCES: dict[str, UserFile] = {}  # by digest


@contextmanager
def looking_in(*folders: Path) -> Iterator[None]:
    """While this is open, files are looked for in these folders first."""
    token = PLACES.set((*folders, Path()))
    try:
        yield
    finally:
        PLACES.reset(token)


def digest_of(text: str) -> str:
    """Ten hexadecimal digits that name a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def copy_of(name: str, digest: str, folder: Path) -> Path:
    """The copy of the file of a reference beside a page in a folder."""
    return folder / COPIES / f"{Path(name.partition(':')[0]).stem}.{digest}.py"


def source_of(file: str, digest: str = "") -> tuple[str, UserFile]:
    """The digest and the content of a file, or of its copy beside a page; it is imported once.

    Raises:
        UserError: where it is not there, was changed since, or cannot be imported.
    """
    if digest in SOURCES:
        return digest, SOURCES[digest]
    changed = None
    for folder in dict.fromkeys(PLACES.get()):
        copy = copy_of(file, digest, folder)
        for path in (copy, folder / file) if digest else (folder / file,):
            if not path.is_file():
                continue
            text = path.read_text(encoding="utf-8")
            here = digest_of(text)
            if digest in ("", here):
                if here not in SOURCES:
                    SOURCES[here] = UserFile(path, text, imported(path, here))
                return here, SOURCES[here]
            changed = f"{path} was changed since, and its copy {copy.name} is missing"
    if changed:
        raise UserError(changed)
    folders = ", ".join(str(folder.resolve()) for folder in dict.fromkeys(PLACES.get()))
    raise UserError(f"there is no file {file} in {folders}")


def imported(path: Path, digest: str) -> ModuleType:
    """The module of a file, which may import what lies beside it.

    Raises:
        UserError: where the file raises.
    """
    name = f"nnref_source_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a file ending in .py has a loader"
    assert spec.loader is not None, "and this is it"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 1)
        raise UserError(f"{path}:{line}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    return module


def found(name: str, digest: str) -> tuple[Any, str]:
    """What a reference names, and the digest of its file; "" for one of optax.

    Raises:
        UserError: where it is not there.
    """
    file, _, member = name.partition(":")
    if file == OPTAX:
        import optax

        places, digest = [optax, optax.contrib], ""
    elif file.endswith(".py"):
        digest, source = source_of(file, digest)
        places = [source.module]
    else:
        raise UserError(f'"{file}" is no file; give "file.py:name", or "optax:name"')
    for place in places:
        if hasattr(place, member):
            return getattr(place, member), digest
    names = [n for place in places for n, v in vars(place).items() if callable(v) and n[0] != "_"]
    raise UserError(f"{file} has no {member}{nearest(member, names)}")


def with_digests(value: Any) -> Any:
    """A value of a file, whose references to files have the digest of what they name.

    What is not there is left as it is: where it is read, that is told.
    """
    if isinstance(value, list):
        return [with_digests(each) for each in value]
    if isinstance(value, str) and FILE.fullmatch(value):
        value = {"name": value}
    if not isinstance(value, dict):
        return value
    name = value.get("name")
    made = {key: v if key == "name" else with_digests(v) for key, v in value.items()}
    if isinstance(name, str) and FILE.fullmatch(name):
        with suppress(UserError):
            made["digest"] = found(name, value.get("digest", ""))[1]
    return made


def settings_of(kind: str, target: Any) -> list[inspect.Parameter]:
    """The arguments of a target that a file may give: all but those that training passes.

    Raises:
        UserError: for a loss that calls the network itself.
    """
    if not (inspect.isroutine(target) or isinstance(target, type)):
        return []  # a model as it stands, which is called with rows
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [p for p in parameters_of(target) or [] if p.kind not in several]
    names = [p.name for p in parameters]
    if kind == "loss" and (names[:1] in (["params"], ["model"]) or "key" in names[2:]):
        raise UserError(
            f"a loss of ({', '.join(names)}) calls the network itself, which nnref.Task allows; "
            "that of an experiment takes (outputs, y), and then its settings"
        )
    passed = PASSED if kind == "model" else set()
    if "parent" in names:
        passed = passed | {"name"}  # Linen names its modules itself
    return [p for p in parameters[BY_PLACE.get(kind, 0) :] if p.name not in passed]


def type_of(setting: inspect.Parameter) -> Any:
    """The type of a setting: its annotation where that is plain, or that of its default."""
    default, annotation = setting.default, setting.annotation
    if annotation in PLAIN or get_origin(annotation) in (Literal, Annotated):
        return annotation
    if setting.name == "learning_rate" or isinstance(default, float):
        return float
    if isinstance(default, bool | str) or (type(default) is int and annotation is setting.empty):
        return type(default)
    plain = all(part in (*PLAIN, ...) for part in get_args(annotation))
    return annotation if get_origin(annotation) is tuple and plain else Any
