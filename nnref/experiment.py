"""The experiment file: strict JSON, turned into an `Experiment` that is frozen and has an identity.

The schema is drawn from the signatures of the families' functions: a keyword-only argument is a
key, its annotation the type and range, its default the default, its line in the docstring the
description. Nothing of it is written here.
"""

import hashlib
import inspect
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, partial, reduce
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import docstring_parser
import numpy as np
import yaml
from annotated_types import Ge
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from nnref.activations import ACTIVATIONS
from nnref.bounds import Count, Index, MemberOf
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


# --- from signatures to a schema ----------------------------------------------------------------


class Part(BaseModel):
    """A piece of an experiment: no unknown keys, no silent conversions, no changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def lists_as_tuples(cls, given: Any) -> Any:
        """JSON has lists only; what is frozen holds tuples."""
        if not isinstance(given, dict):
            return given
        return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}


def schema_arguments(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What an experiment file may say: keyword-only arguments, or the fields of a record."""
    if isinstance(function, type) and issubclass(function, tuple):
        return list(inspect.signature(function).parameters.values())
    called = function.__init__ if isinstance(function, type) else function
    parameters = inspect.signature(called).parameters.values()
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def member_marker(annotation: Any) -> MemberOf | None:
    """The `MemberOf` of an argument that is itself a component."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((m for m in get_args(annotation)[1:] if isinstance(m, MemberOf)), None)


def field(parameter: inspect.Parameter, description: str | None) -> tuple[Any, Any]:
    """Type and default of one key."""
    marker, default = member_marker(parameter.annotation), parameter.default
    annotation = parameter.annotation
    if marker:
        annotation = component(marker.kind, marker.family)
        if callable(default):
            name = next(n for n, member in marker.family.items() if member is default)
            default = member_model(marker.kind, name, default).model_validate({"name": name})
    if default is parameter.empty:
        return annotation, Field(description=description)
    return annotation, Field(default, description=description)


class Member(Part):
    """A part that stands for a function with its arguments."""

    function: ClassVar[Callable[..., Any]]


@cache
def arguments_model(title: str, function: Callable[..., Any], name: str | None) -> type[Member]:
    """The schema of a function's arguments, from its signature and docstring.

    Args:
        title: of the model in JSON Schema.
        function: whose arguments, or the class whose constructor.
        name: the member's word in its family, which becomes the key `name`; None for a record.
    """
    said = docstring_parser.parse(inspect.getdoc(function) or "")
    lines = {p.arg_name: " ".join((p.description or "").split()) for p in said.params}
    fields: dict[str, Any] = {}
    if name is not None:
        fields["name"] = (Literal[name], Field(description=said.short_description))  # pyright: ignore
    fields |= {p.name: field(p, lines.get(p.name)) for p in schema_arguments(function)}
    model = create_model(title, __base__=Member, __doc__=said.short_description, **fields)
    model.function = staticmethod(function)
    return model


def member_model(kind: str, name: str, function: Callable[..., Any]) -> type[Member]:
    """The schema of one member of a family."""
    return arguments_model(f"{kind}_{name}", function, name)


def component(kind: str, family: Mapping[str, Any]) -> Any:
    """The type of a component: `{"name": ..., its arguments}`, or just the name."""
    tagged = [Annotated[member_model(kind, n, f), Tag(n)] for n, f in family.items()]
    union = reduce(operator.or_, tagged)
    either = union | Literal[tuple(family)]  # pyright: ignore
    return Annotated[
        union,
        Discriminator(member_name),
        BeforeValidator(bare_name, json_schema_input_type=either),
    ]


def bare_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


def member_name(given: Any) -> Any:
    return given.get("name") if isinstance(given, dict) else getattr(given, "name", None)


# --- the experiment -----------------------------------------------------------------------------

METRIC = "a measure of the history, like valid_loss or train_accuracy"


def in_a_tuple(given: Any) -> Any:
    return tuple(given) if isinstance(given, list | tuple) else (given,)


class Bounds(Part):
    """A measure of the history and the values it may have."""

    metric: Annotated[str, Field(description="a measure, like valid_loss or train_accuracy")]
    at_least: Annotated[float | None, Field(description="the measure reaches this or more")] = None
    at_most: Annotated[float | None, Field(description="the measure reaches this or less")] = None

    def within(self, value: float) -> bool:
        """Whether a value is within the bounds. NaN never is."""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= value <= high

    def refuse_no_bound(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a claim needs at_least or at_most")

    def __str__(self) -> str:
        sides = ((">=", self.at_least), ("<=", self.at_most))
        told = [f"{self.metric} {sign} {bound:g}" for sign, bound in sides if bound is not None]
        return " and ".join(told) or self.metric


class CountClaim(Bounds):
    """A measure at the end of the run, a bound, and in how many of the seeds."""

    in_: Annotated[
        tuple[Index, ...],
        BeforeValidator(in_a_tuple, json_schema_input_type=int | list[int]),
        Field(
            alias="in",
            min_length=1,
            max_length=2,
            description="seeds that must reach it: this many or more, or [from, to]",
        ),
    ]
    of: Annotated[Count, Field(description="seeds of the run")]

    @model_validator(mode="after")
    def says_something(self) -> "CountClaim":
        if max(self.in_) > self.of:
            raise ValueError(f"in must not be more than of, {self.of}")
        self.refuse_no_bound()
        return self

    def judged(self, values: Sequence[float]) -> tuple[bool, str]:
        """Whether enough seeds, and not too many, are within the bounds; and that in words."""
        least, most = (*self.in_, self.of)[:2]
        reached = sum(map(self.within, values))
        wanted = f"{least} or more" if most == self.of else f"{least} to {most}"
        told = f"{self} in {reached} of {self.of} seeds, claimed {wanted}"
        return least <= reached <= most, told


STATISTICS = {
    "mean": np.mean,
    "mean_square": lambda values: np.mean(np.square(values)),
    "median": np.median,
}


class StatisticClaim(Bounds):
    """A statistic over the seeds of a measure at the end of the run, and its bounds."""

    statistic: Annotated[
        Literal["mean", "mean_square", "median"], Field(description="over the seeds")
    ]
    among: Annotated[
        Literal["all", "stopped"], Field(description="all seeds, or those that reached `stop`")
    ] = "all"

    @model_validator(mode="after")
    def says_something(self) -> "StatisticClaim":
        self.refuse_no_bound()
        return self

    def judged(self, values: Sequence[float]) -> tuple[bool, str]:
        """Whether the statistic is within the bounds; and that in words."""
        value = float(STATISTICS[self.statistic](values)) if len(values) else float("nan")
        of = f"{len(values)} seeds" if self.among == "all" else f"{len(values)} seeds that stopped"
        words = f"{self.statistic.replace('_', ' ')} of {of}"
        return self.within(value), f"{self} in the {words}: {value:.6g}"


class TwinClaim(Part):
    """A measure that is the same at every epoch as in another experiment."""

    metric: Annotated[str, Field(description="a measure, like valid_loss or train_accuracy")]
    twin: Annotated[str, Field(description="name of the other experiment, in the same folder")]
    within: Annotated[float, Ge(0), Field(description="largest difference at any epoch")]
    times: Annotated[float, Field(description="factor on the other's measure")] = 1.0

    def judged(self, ours: np.ndarray, theirs: np.ndarray) -> tuple[bool, str]:
        """Whether histories (seeds, epochs + 1) agree; and that in words."""
        same_shape = ours.shape == theirs.shape
        apart = float(np.abs(ours - self.times * theirs).max()) if same_shape else float("inf")
        times = "" if self.times == 1 else f"{self.times:g} times "
        told = f"{self.metric} is {times}that of {self.twin} to {apart:.2g}"
        return apart <= self.within, f"{told}, claimed {self.within:g}"


def kind_of_claim(given: Any) -> str:
    keys = given if isinstance(given, Mapping) else type(given).model_fields
    return "twin" if "twin" in keys else "statistic" if "statistic" in keys else "count"


Claim = Annotated[
    Annotated[CountClaim, Tag("count")]
    | Annotated[StatisticClaim, Tag("statistic")]
    | Annotated[TwinClaim, Tag("twin")],
    Discriminator(kind_of_claim),
]


class Stop(Bounds):
    """When a seed stops before its last epoch: at a target, or when patience is over.

    With patience the run keeps the network of its best evaluation, whether it stopped or not.
    """

    metric: Annotated[str, Field(description="the measure that is watched")] = "valid_loss"
    patience: Annotated[
        Count | None,
        Field(description="evaluations without a new best to wait for; the best one is kept"),
    ] = None

    @model_validator(mode="after")
    def says_something(self) -> "Stop":
        if self.at_least is None and self.at_most is None and self.patience is None:
            raise ValueError("a stop needs at_least, at_most or patience")
        return self


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
        super().__init__("\n".join(explain(error, {})))
        self.error = error


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
    stop: Annotated[Stop | None, Field(description="when a seed stops early")] = None
    claim: Annotated[
        tuple[Claim, ...],
        BeforeValidator(in_a_tuple, json_schema_input_type=Claim | list[Claim]),
        Field(description="what must come out; several must all hold"),
    ] = ()

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
        claim decide nothing, and each seed is a run of its own.
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
        content = self.model_dump(mode="json", by_alias=True, exclude={"schema_"})
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


WORDS = {"schema_", "about", "claim"}  # decide nothing
PLAN = {"batch_size", "epochs", "seeds", "shuffle", "evaluate_every", "stop"}
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
    text = blank_comments(text)
    try:
        content = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_twice)
    except json.JSONDecodeError as error:
        raise UserError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except GivenTwice as error:
        raise UserError("\n".join(locate(text)[1]) or str(error)) from None
    if not isinstance(content, dict):
        raise UserError("an experiment is a JSON object: { ... }")
    for path, value in (settings or {}).items():
        set_path(content, path, value)
    try:
        return Experiment(**content)
    except Mistakes as mistakes:
        raise UserError("\n".join(explain(mistakes.error, locate(text)[0]))) from None


def read(path: str | Path, settings: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment from a file.

    Raises:
        UserError: for a file that is not there, or is no experiment.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: {(error.strerror or 'unreadable').lower()}{others(path)}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file") from None
    try:
        return parse(text, settings)
    except UserError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in str(error).split("\n"))) from None


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


# --- errors in words ----------------------------------------------------------------------------


def explain(error: ValidationError, lines: Mapping[str, int]) -> list[str]:
    """One line for each mistake: path, line, what was given, what is allowed."""
    told = []
    for one in error.errors():
        *parents, last = one["loc"] or ("experiment",)
        path, _ = place_of(one["loc"])
        _, siblings = place_of(parents)
        line = next((lines[p] for p in (path, path.rpartition(".")[0]) if p in lines), None)
        where = f"{path}{f' (line {line})' if line else ''}"
        told.append(f"{where}: {in_words(one, str(last), siblings)}")
    return list(dict.fromkeys(told))


def place_of(location: Sequence[int | str]) -> tuple[str, list[str]]:
    """The path of an error in the file, and the keys that its object may have.

    Pydantic's location also names the members of its unions: those steps are no keys.
    """
    path: list[str] = []
    parts: list[type[Part]] = [Experiment]
    for step in location:
        keys = known_keys(parts[0]) if len(parts) == 1 else {}
        chosen = [part for part in parts if step in (member_word(part), claim_word(part))]
        if chosen and step not in keys:
            parts = chosen
            continue
        path.append(str(step))
        if step in keys:
            parts = parts_in(keys[step].rebuild_annotation())
    last = known_keys(parts[0]) if len(parts) == 1 else {}
    return ".".join(path), list(last)


def known_keys(part: type[Part]) -> dict[str, FieldInfo]:
    """The keys of a part as they stand in a file."""
    return {each.alias or name: each for name, each in part.model_fields.items()}


def member_word(part: type[Part]) -> str | None:
    """The word that names a member in its family."""
    name = part.model_fields.get("name")
    return get_args(name.annotation)[0] if name and get_args(name.annotation) else None


def claim_word(part: type[Part]) -> str | None:
    """The tag of a kind of claim."""
    return kind_of_claim(part.model_fields) if part.__name__.endswith("Claim") else None


def parts_in(annotation: Any) -> list[type[Part]]:
    """The parts that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for each in get_args(annotation) for part in parts_in(each)]


ALLOWED = {
    "greater_than": "allowed is a number above {gt}",
    "greater_than_equal": "allowed is a number from {ge} up",
    "less_than": "allowed is a number below {lt}",
    "less_than_equal": "allowed is a number up to {le}",
    "float_type": "allowed is a number",
    "int_type": "allowed is a whole number",
    "int_from_float": "allowed is a whole number",
    "bool_type": "allowed are true and false",
    "string_type": "allowed is text in quotes",
    "tuple_type": "allowed is a list, like [1, 2]",
    "too_short": "allowed are at least {min_length} entries",
    "too_long": "allowed are at most {max_length} entries",
    "finite_number": "allowed is a finite number",
    "model_type": "allowed is an object, like {{...}}",
    "model_attributes_type": "allowed is an object, like {{...}}",
    "literal_error": "allowed: {expected}",
    "value_error": "{error}",
}


def in_words(error: ErrorDetails, key: str, siblings: Sequence[str]) -> str:
    """What was given, what is allowed, and the nearest valid word."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return "missing; it has no default"
    if kind == "extra_forbidden":
        known = [k for k in siblings if k != "name"]
        return f"unknown key; allowed: {', '.join(known) or 'none'}{nearest(key, known)}"
    if kind == "union_tag_invalid":
        tag, members = context["tag"], context["expected_tags"].replace("'", "")
        return f'"{tag}" given; allowed: {members}{nearest(tag, members.split(", "))}'
    if kind == "union_tag_not_found":
        return f'{as_json(given)} given; allowed is a name, or an object like {{"name": ...}}'
    numbers = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
    told = ALLOWED.get(kind, error["msg"]).format(**numbers)
    hint = ""
    if kind == "literal_error" and isinstance(given, str):
        hint = nearest(given, re.findall(r"'(.*?)'", context["expected"]))
    return f"{as_json(given)} given; {told}{hint}"


def as_json(given: Any) -> str:
    text = json.dumps(given, default=str)
    return text if len(text) < 60 else text[:57] + "..."
