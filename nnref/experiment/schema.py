"""The schema of a part of an experiment, drawn from the signature of a function.

A keyword-only argument is a key, its annotation the type and range, its default the default, its
line in the docstring the description. What a file gets wrong is said in words here, too.
"""

import inspect
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, reduce
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import docstring_parser
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from nnref.bounds import MemberOf
from nnref.errors import SYNONYMS, UserError, nearest
from nnref.experiment.sources import found, settings_of
from nnref.experiment.sources import type_of as type_of_setting

OWN = "reference"  # what Pydantic calls a part of a user's own in the places of mistakes
# The kinds of parts that may be one.
REFERENCED = ("data", "model", "loss", "optimizer", "activation")


class Part(BaseModel):
    """A piece of an experiment: no unknown keys, no silent conversions, no changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    word: ClassVar[str | None] = None  # of a part without a name, in a union

    @model_validator(mode="before")
    @classmethod
    def lists_as_tuples(cls, value: Any) -> Any:
        """JSON has lists only; what is frozen holds tuples."""
        if not isinstance(value, dict):
            return value
        return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}


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


def docstring_of(function: Callable[..., Any]) -> Any:
    """The docstring of a function, parsed."""
    return docstring_parser.parse(inspect.getdoc(function) or "")


def described_arguments(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function says of each of its arguments."""
    params = docstring_of(function).params
    return {p.arg_name: " ".join((p.description or "").split()) for p in params}


@cache
def arguments_model(title: str, function: Callable[..., Any], name: str | None) -> type[Member]:
    """The schema of the arguments of a function, or a class, from its signature and docstring.

    The name of a member in its family becomes the key `name`; a record has none.
    """
    docstring, lines = docstring_of(function), described_arguments(function)
    fields: dict[str, Any] = {}
    if name is not None:
        fields["name"] = (Literal[name], Field(description=docstring.short_description))  # pyright: ignore
    fields |= {p.name: field(p, lines.get(p.name)) for p in schema_arguments(function)}
    model = create_model(title, __base__=Member, __doc__=docstring.short_description, **fields)
    model.function = staticmethod(function)
    return model


def member_model(kind: str, name: str, function: Callable[..., Any]) -> type[Member]:
    """The schema of one member of a family."""
    return arguments_model(f"{kind}_{name}", function, name)


PATTERN = r"^[^:]+:\w+$"  # of the name of a part of a user's own


class Reference(Member):
    """A part of a user's own: a function, a class or a model in a file, with its arguments."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})
    word = OWN
    name: Annotated[str, Field(pattern=PATTERN, description='"file.py:name", or "optax:name"')]
    digest: Annotated[str, Field(description="of the file; a page has it")] = ""


@cache
def reference_model(kind: str, name: str, digest: str) -> type[Reference]:
    """The schema of a reference: the arguments of what it names."""
    target, _ = found(name, digest)
    lines = described_arguments(target) if callable(target) else {}
    fields: dict[str, Any] = {"name": (Literal[name], ...), "digest": (str, "")}  # pyright: ignore
    for one in settings_of(kind, target):
        default = ... if one.default is one.empty else one.default
        fields[one.name] = (type_of_setting(one), Field(default, description=lines.get(one.name)))
    model = create_model(f"{kind}_{name}", __base__=Reference, **fields)
    model.function = staticmethod(target) if callable(target) else target
    return model


def referenced(kind: str) -> Callable[[Any], Any]:
    """The check of a reference against the arguments of what it names.

    Where it is not there this raises a ValueError, for keys that it does not have, and values that
    these may not have, a ValidationError, which Pydantic tells with their places.
    """

    def checked(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = value["name"]
        try:
            _, digest = found(name, value.get("digest", ""))
            model = reference_model(kind, name, digest)
        except UserError as error:
            raise ValueError(str(error)) from None
        known = [key for key in model.model_fields if key not in ("name", "digest")]
        words = f"unknown key; allowed: {', '.join(known) or 'none'}"
        unknown = [key for key in value if key not in model.model_fields]
        if unknown:
            errors = {
                key: PydanticCustomError(
                    "unknown_key", "{words}", {"words": words + nearest(key, known, ELSEWHERE)}
                )
                for key in unknown
            }
            details: list[InitErrorDetails] = [
                {"type": error, "loc": (key,), "input": value[key]} for key, error in errors.items()
            ]
            raise ValidationError.from_exception_data(name, details)
        return model.model_validate({**value, "digest": digest})

    return checked


def references_in(part: Any) -> Iterator[Reference]:
    """The references among a part and its arguments."""
    if isinstance(part, Reference):
        yield part
    if isinstance(part, Part):
        for name in type(part).model_fields:
            yield from references_in(getattr(part, name))


def component(kind: str, family: Mapping[str, Any]) -> Any:
    """The type of a component: `{"name": ..., its arguments}`, or just the name."""
    tagged = [Annotated[member_model(kind, n, f), Tag(n)] for n, f in family.items()]
    if kind in REFERENCED:
        own = Annotated[SerializeAsAny[Reference], BeforeValidator(referenced(kind))]
        tagged.append(Annotated[own, Tag(OWN)])
    union = reduce(operator.or_, tagged)
    either = union | Literal[tuple(family)]  # pyright: ignore
    if kind in REFERENCED:
        either |= Annotated[str, Field(pattern=PATTERN)]
    return Annotated[
        union, Discriminator(member_name), BeforeValidator(bare_name, json_schema_input_type=either)
    ]


def bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def member_name(value: Any) -> Any:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return OWN if isinstance(name, str) and ":" in name else name


# --- errors in words ----------------------------------------------------------------------------


def explain(error: ValidationError, root: type[Part], lines: Mapping[str, int]) -> list[str]:
    """One line for each mistake in a part: its path, its line in the file, and `in_words`."""
    messages = []
    for one in error.errors():
        *parents, last = one["loc"] or ("experiment",)
        path, _ = place_of(one["loc"], root)
        _, siblings = place_of(parents, root)
        line = next((lines[p] for p in (path, path.rpartition(".")[0]) if p in lines), None)
        where = f"{path}{f' (line {line})' if line else ''}"
        messages.append(f"{where}: {in_words(one, str(last), siblings)}")
    return list(dict.fromkeys(messages))


def place_of(location: Sequence[int | str], root: type[Part]) -> tuple[str, dict[str, FieldInfo]]:
    """The path of an error in the file, and the keys that its object may have.

    Pydantic's location also names the members of its unions: those steps are no keys.
    """
    path: list[str] = []
    parts: list[type[Part]] = [root]
    for step in location:
        keys = known_keys(parts[0]) if len(parts) == 1 else {}
        chosen = [part for part in parts if step == word_of(part)]
        if chosen and step not in keys:
            parts = chosen
            continue
        path.append(str(step))
        if step in keys:
            parts = parts_in(keys[step].rebuild_annotation())
    return ".".join(path), known_keys(parts[0]) if len(parts) == 1 else {}


def known_keys(part: type[Part]) -> dict[str, FieldInfo]:
    """The keys of a part as they stand in a file."""
    return {each.alias or name: each for name, each in part.model_fields.items()}


def word_of(part: type[Part]) -> str | None:
    """The word that tells a part from the others of its union."""
    name = part.model_fields.get("name")
    words = get_args(name.annotation) if name else ()
    return words[0] if words else part.word


def parts_in(annotation: Any) -> list[type[Part]]:
    """The parts that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for each in get_args(annotation) for part in parts_in(each)]


ELSEWHERE = [name for name in SYNONYMS if "." in name and " " not in name]  # keys by their path
MISSING = "missing; it has no default"

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
    "dict_type": "allowed is an object, like {{...}}",
    "model_attributes_type": "allowed is an object, like {{...}}",
    "literal_error": "allowed: {expected}",
    "value_error": "{error}",
}


def in_words(error: ErrorDetails, key: str, siblings: Mapping[str, FieldInfo]) -> str:
    """What was given, what is allowed, and the nearest valid word."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        annotation = siblings[key].annotation if key in siblings else None
        words = get_args(annotation) if get_origin(annotation) is Literal else ()
        return f"missing; give {' or '.join(map(as_json, words))}" if words else MISSING
    if kind == "extra_forbidden":
        known = [k for k in siblings if k != "name"]
        hint = nearest(key, known, ELSEWHERE)
        return f"unknown key; allowed: {', '.join(known) or 'none'}{hint}"
    if kind == "union_tag_invalid":
        tag, members = context["tag"], context["expected_tags"].replace("'", "")
        return f'"{tag}" given; allowed: {members}{nearest(tag, members.split(", "))}'
    if kind == "union_tag_not_found":
        return f'{as_json(value)} given; allowed is a name, or an object like {{"name": ...}}'
    if kind == "unknown_key":
        return error["msg"]
    numbers = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
    allowed = ALLOWED.get(kind, error["msg"]).format(**numbers)
    hint = ""
    texts = key in siblings and str in get_args(siblings[key].annotation)
    if kind == "tuple_type" and isinstance(value, str) and texts:
        allowed = f"allowed is a list, like {as_json([value])}"
    if kind == "literal_error" and isinstance(value, str):
        hint = nearest(value, re.findall(r"'(.*?)'", context["expected"]))
    return f"{as_json(value)} given; {allowed}{hint}"


def as_json(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 60 else text[:57] + "..."
