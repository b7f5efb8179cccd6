"""The experiment file: strict JSON, turned into an `Experiment` that is frozen and has an identity.

The schema of its parts is drawn from the signatures of the families' functions, see `schema.py`:
nothing of it is written here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from nnref.activations import ACTIVATIONS
from nnref.axes import Sweep
from nnref.bounds import Count, Index
from nnref.claims import Claim, Stop, in_a_tuple
from nnref.clipping import CLIPPING
from nnref.data import DATA
from nnref.errors import UserError, nearest
from nnref.initializers import INITIALIZERS
from nnref.losses import LOSSES
from nnref.metrics import METRICS
from nnref.models import MODELS
from nnref.optimizers import OPTIMIZERS
from nnref.regularizers import Regularization
from nnref.schedules import SCHEDULES
from nnref.schema import Member, Part, arguments_model, component, explain, member_model

FAMILIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "data": DATA,
    "model": MODELS,
    "activation": ACTIVATIONS,
    "initializer": INITIALIZERS,
    "loss": LOSSES,
    "metric": METRICS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "clipping": CLIPPING,
}


class SeedRange(Part):
    """Seeds from the first up, as many as counted."""

    first: Index = 0
    count: Count


def range_of_seeds(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    seeds = SeedRange(**given)
    return tuple(range(seeds.first, seeds.first + seeds.count))


def range_in_short(seeds: tuple[int, ...]) -> Any:
    first, count = seeds[0], len(seeds)
    if count > 8 and seeds == tuple(range(first, first + count)):
        return {"first": first, "count": count}
    return list(seeds)


class Mistakes(UserError):
    """Everything that is wrong with the keys of an experiment."""

    def __init__(self, error: ValidationError):
        super().__init__("\n".join(explain(error, Experiment, {})))
        self.error = error

    def in_lines_of(self, text: str) -> list[str]:
        """Each mistake, with its line in the text of a file."""
        return explain(self.error, Experiment, locate(blank_comments(text))[0])


Record = arguments_model("regularization", Regularization, None)


def nothing_on(given: Any) -> Any:
    return {} if given == "off" else given


class Experiment(Part):
    """Everything that decides what a run computes.

    Args (all by keyword): the keys of an experiment file; a component is its name, or a dict of
    its name and arguments.

    Raises:
        UserError: listing every mistake.
    """

    schema_: Annotated[
        str, Field(alias="$schema", description="path of schema.json, for editors")
    ] = ""
    about: Annotated[str, Field(description="what the experiment is for")] = ""
    data: component("data", DATA)  # pyright: ignore
    model: component("model", MODELS)  # pyright: ignore
    loss: component("loss", LOSSES)  # pyright: ignore
    optimizer: component("optimizer", OPTIMIZERS)  # pyright: ignore
    schedule: component("schedule", SCHEDULES) = member_model(  # pyright: ignore
        "schedule", "constant", SCHEDULES["constant"]
    ).model_validate({"name": "constant"})
    clipping: component("clipping", CLIPPING) | None = None  # pyright: ignore
    regularization: Annotated[Record, BeforeValidator(nothing_on)] = Field(  # pyright: ignore
        Record(), description='terms that are on; "off" for none'
    )
    metrics: Annotated[
        tuple[component("metric", METRICS), ...] | None,  # pyright: ignore
        Field(description="what is measured beside the loss; null for what suits the targets"),
    ] = None
    batch_size: Annotated[Count, Field(description="examples an update")]
    epochs: Annotated[Count, Field(description="passes over the training data")]
    seeds: Annotated[
        tuple[Index, ...],
        BeforeValidator(range_of_seeds, json_schema_input_type=list[Index] | SeedRange),
        PlainSerializer(range_in_short),
        Field(min_length=1, description="one run for each, all in one program"),
    ] = (0,)
    shuffle: Annotated[bool, Field(description="draw the order of the rows anew each epoch")] = True
    evaluate_every: Annotated[
        Count, Field(description="epochs between two validations; the last epoch always has one")
    ] = 1
    probes: Annotated[
        Literal["off", "epoch", "step"],
        Field(
            description="how often each layer is measured: gradients, updates, dead units; "
            '"epoch" leaves some out where they would cost more than 5 % of the time'
        ),
    ] = "epoch"
    stop: Annotated[Stop | None, Field(description="when a seed stops early")] = None
    claim: Annotated[
        tuple[Claim, ...],
        BeforeValidator(in_a_tuple, json_schema_input_type=Claim | list[Claim]),
        Field(description="what must come out; several must all hold"),
    ] = ()
    sweep: Annotated[
        Sweep | None, Field(description="what varies, for nnref sweep: the rest is the same")
    ] = None

    def __init__(self, /, **keys: Any):
        try:
            super().__init__(**keys)
        except ValidationError as error:
            raise Mistakes(error) from None

    def __hash__(self) -> int:
        return hash(self.canonical)

    @cached_property
    def canonical(self) -> str:
        """The content that decides a run, sorted, without what equals its default.

        Leaving defaults out lets the identity survive a new argument in a later version. About and
        claim decide nothing, each seed is a run of its own, and so is each variant of a sweep.
        """
        content = self.model_dump(
            mode="json",
            by_alias=True,
            exclude_defaults=True,
            exclude=WORDS | {"seeds"},
        )
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @cached_property
    def identity(self) -> str:
        """Ten hexadecimal digits that name the canonical content, the same everywhere."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:10]

    def to_json(self) -> str:
        """The complete experiment, defaults filled in, as a file that reads back to itself."""
        left_out = {"schema_"} if self.sweep else {"schema_", "sweep"}
        content = self.model_dump(mode="json", by_alias=True, exclude=left_out)
        text = json.dumps(content, indent=2)
        return re.sub(r"[{[]\s+[^][{}]*[]}]", on_one_line, text) + "\n"

    def replaced(self, settings: Mapping[str, Any]) -> "Experiment":
        """The same experiment with some keys set, each named by its path of dots.

        Raises:
            UserError: for a path that leads nowhere, or a value that is not allowed.
        """
        content = self.model_dump(mode="json", by_alias=True)
        for path, value in settings.items():
            set_path(content, path, value)
        return Experiment(**content)

    # Numbers may be traced: one program serves every learning rate. Structure may not.

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The floats that a program takes as arguments, by path: "optimizer.learning_rate"."""
        return dict(
            leaf
            for kind in (*TRACED, "regularization")
            for leaf in float_leaves(getattr(self, kind), kind)
        )

    @cached_property
    def structure(self) -> str:
        """What decides a program besides its numbers: everything but data, plan and words."""
        content = self.model_dump(mode="json", exclude=WORDS | PLAN | {"data"})
        for path in self.numbers:
            set_path(content, path, None)
        return json.dumps(content, sort_keys=True)

    def bind(self, kind: str, numbers: Mapping[str, Any]) -> Callable[..., Any]:
        """The function of a component with its arguments, floats taken from `numbers`."""
        return bound(getattr(self, kind), kind, numbers)


def on_one_line(innermost: re.Match[str]) -> str:
    joined = " ".join(innermost[0].split())
    short = joined[0] + joined[1:-1].strip() + joined[-1]
    return short if len(short) <= 80 else innermost[0]


WORDS = {"schema_", "about", "claim", "sweep"}  # decide nothing
PLAN = {"batch_size", "epochs", "seeds", "shuffle", "evaluate_every", "probes", "stop"}
TRACED = ("model", "loss", "optimizer", "schedule", "clipping")


def float_leaves(part: Any, path: str) -> Iterable[tuple[str, float]]:
    if isinstance(part, Part):
        for name in type(part).model_fields:
            yield from float_leaves(getattr(part, name), f"{path}.{name}")
    elif isinstance(part, float):
        yield path, part


def bound(part: Member, path: str, numbers: Mapping[str, Any]) -> Callable[..., Any]:
    arguments = {}
    for name in type(part).model_fields:
        value, where = getattr(part, name), f"{path}.{name}"
        if isinstance(value, Member):
            value = bound(value, where, numbers)
        if name != "name":
            arguments[name] = numbers.get(where, value)
    return partial(type(part).function, **arguments)


# --- reading a file -----------------------------------------------------------------------------


def parse(text: str, settings: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment from the text of a file, with `settings` as in `Experiment.replaced`.

    Raises:
        UserError: listing every mistake with its path and line.
    """
    content = contents(text)
    for path, value in (settings or {}).items():
        set_path(content, path, value)
    try:
        return Experiment(**content)
    except Mistakes as mistakes:
        raise UserError("\n".join(mistakes.in_lines_of(text))) from None


def contents(text: str) -> dict[str, Any]:
    """What stands in the text of a file, comments left out.

    Raises:
        UserError: for what is no JSON object.
    """
    text = blank_comments(text)
    try:
        content = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_twice)
    except json.JSONDecodeError as error:
        raise UserError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except GivenTwice as error:
        raise UserError("\n".join(locate(text)[1]) or str(error)) from None
    if not isinstance(content, dict):
        raise UserError("an experiment is a JSON object: { ... }")
    return content


def read(path: str | Path, settings: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment from a file.

    Raises:
        UserError: for a file that is not there, or is no experiment.
    """
    path = Path(path)
    text = read_text(path)
    try:
        return parse(text, settings)
    except UserError as error:
        raise UserError(in_file(path, str(error))) from None


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: for a file that is not there, or has no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: {(error.strerror or 'unreadable').lower()}{others(path)}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file") from None


def in_file(path: Path, told: str) -> str:
    """Lines about a file, each with its path."""
    return "\n".join(f"{path}: {line}" for line in told.split("\n"))


def others(path: Path) -> str:
    """What lies beside a file that is missing."""
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
    lines: dict[str, int] = {}
    twice: list[str] = []

    def visit(node: yaml.Node | None, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner, line = f"{path}.{key.value}".lstrip("."), key.start_mark.line + 1
                if inner in lines:
                    first = lines[inner]
                    twice.append(
                        f"{inner} (line {line}): given twice, also in line {first}; keep one"
                    )
                lines[inner] = line
                visit(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[f"{path}.{index}"] = value.start_mark.line + 1
                visit(value, f"{path}.{index}")

    try:
        visit(yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader), "")
    except yaml.YAMLError:
        pass  # json.loads says what is wrong; without it, errors merely lack their line
    return lines, twice


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
