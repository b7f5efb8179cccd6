"""Axes: what varies in a sweep, and the settings of each of its variants.

The key `sweep` of an experiment file says by path what takes several values. A value may itself be
a whole component with axes of its own, which then hold for that alternative alone.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge
from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from nnref.bounds import Count, Few, Index, Positive
from nnref.errors import nearest
from nnref.experiment.claims import Bounds
from nnref.experiment.schema import Part, in_words

MOST = 100_000  # variants of a sweep
DIGITS = 6  # significant, of a value that is computed: short enough to be written in a file


class Axis(Part):
    """The values that something takes: `drawn(path)` lists them for the axis at a path."""

    random: ClassVar[bool] = False


class Values(Axis):
    """These values."""

    word: ClassVar[str | None] = "values"
    values: Annotated[tuple[Any, ...], Field(min_length=1, description="one after the other")]

    def drawn(self, path: str) -> list[Any]:
        return list(self.values)


class Grid(Axis):
    """Evenly spaced values."""

    word: ClassVar[str | None] = "grid"
    grid: Annotated[
        tuple[float, float, Few], Field(description="first, last, and how many, evenly spaced")
    ]

    def drawn(self, path: str) -> list[float]:
        low, high, count = self.grid
        return [rounded(value, low, high) for value in np.linspace(low, high, count)]


class LogGrid(Axis):
    """Values whose logarithms are evenly spaced."""

    word: ClassVar[str | None] = "log_grid"
    log_grid: Annotated[
        tuple[Positive, Positive, Few],
        Field(description="first, last, and how many, their logarithms evenly spaced"),
    ]

    def drawn(self, path: str) -> list[float]:
        low, high, count = self.log_grid
        return [rounded(value, low, high) for value in np.geomspace(low, high, count)]


class Drawn(Axis):
    """Values drawn at random; the random axes of a variant are drawn together."""

    random: ClassVar[bool] = True
    count: Annotated[Few, Field(description="draws; the same on every random axis")]
    seed: Annotated[Index, Field(description="of the draws")] = 0

    def shares(self, path: str) -> np.ndarray:
        """Uniform numbers in [0, 1), different ones for each path."""
        return np.random.default_rng([self.seed, *path.encode()]).random(self.count)


class Uniform(Drawn):
    """Values drawn uniformly."""

    word: ClassVar[str | None] = "uniform"
    uniform: Annotated[tuple[float, float], Field(description="lowest and highest")]

    def drawn(self, path: str) -> list[float]:
        low, high = self.uniform
        return [rounded(low + (high - low) * share) for share in self.shares(path)]


class LogUniform(Drawn):
    """Values whose logarithms are drawn uniformly."""

    word: ClassVar[str | None] = "log_uniform"
    log_uniform: Annotated[tuple[Positive, Positive], Field(description="lowest and highest")]

    def drawn(self, path: str) -> list[float]:
        low, high = map(math.log, self.log_uniform)
        return [rounded(math.exp(low + (high - low) * share)) for share in self.shares(path)]


KINDS: dict[str, type[Any]] = {
    "values": Values,
    "grid": Grid,
    "log_grid": LogGrid,
    "uniform": Uniform,
    "log_uniform": LogUniform,
}


def rounded(value: float, *ends: float) -> float:
    """To six digits; without a point where it is a whole number, and both ends are whole."""
    short = float(f"{value:.{DIGITS}g}")
    whole = ends and all(float(end).is_integer() for end in ends) and short.is_integer()
    return int(short) if whole else short


def kind_of_axis(axis: Any) -> str | None:
    keys = axis if isinstance(axis, Mapping) else getattr(type(axis), "model_fields", ())
    return next((kind for kind in KINDS if kind in keys), None)


def values_in_short(axis: Any) -> Any:
    """A bare list stands for an axis of these values."""
    if isinstance(axis, list | tuple):
        return {"values": axis}
    if kind_of_axis(axis) is None:
        hint = nearest(next(iter(axis), ""), KINDS) if isinstance(axis, dict) else ""
        kinds = ", ".join(KINDS)
        raise ValueError(f"an axis is a list of values, or an object with one of {kinds}{hint}")
    return axis


AnyAxis = Annotated[
    Annotated[Values, Tag("values")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[LogGrid, Tag("log_grid")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")],
    Discriminator(kind_of_axis),
    BeforeValidator(
        values_in_short,
        json_schema_input_type=list[Any] | Values | Grid | LogGrid | Uniform | LogUniform,
    ),
]
AXIS: TypeAdapter[Any] = TypeAdapter(AnyAxis)


class Halving(Part):
    """Successive halving: after each rung the better variants go on, the others end."""

    rungs: Annotated[
        tuple[Count, ...],
        Field(min_length=2, description="epochs of each rung, in shares of the last, like 1, 3, 9"),
    ]

    @model_validator(mode="after")
    def rises(self) -> "Halving":
        if any(a >= b for a, b in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError("each rung must be longer than the one before, like [1, 3, 9]")
        return self


class Sweep(Part):
    """What varies; every combination is a variant, an experiment of its own."""

    axes: Annotated[
        dict[str, AnyAxis],
        Field(min_length=1, description="path of a key -> its values, grid or random draws"),
    ]
    halving: Annotated[Halving | None, Field(description="end the worse variants early")] = None
    compare: Annotated[
        str | None,
        Field(description="for nnref ablate: path of the axis that is compared; else the first"),
    ] = None
    metric: Annotated[
        str | None,
        Field(description="what is compared; else test_loss, without test data valid_loss"),
    ] = None
    target: Annotated[
        Bounds | None, Field(description="steps to this are told, infinite where it is missed")
    ] = None
    fresh: Annotated[
        int, Ge(10), Field(description="seeds on which the tuned alternatives run once more")
    ] = 10


class Setting(NamedTuple):
    """One value of a variant, and where in the file it comes from."""

    path: str
    value: Any
    source: str


class Mistake(NamedTuple):
    """What is wrong with an axis, and where in the file."""

    source: str
    message: str


class Placed(NamedTuple):
    """An axis, the path that it varies, and where in the file it stands."""

    path: str
    axis: Any
    source: str


def variants(axes: Mapping[str, Any]) -> tuple[list[tuple[Setting, ...]], list[Mistake]]:
    """The settings of every variant, and what is wrong with the axes of a sweep, by path.

    In a variant the settings of a component stand before those inside it. The later axes change
    fastest, and those inside a component faster than it.
    """
    placed = [Placed(path, axis, f"sweep.axes.{path}") for path, axis in axes.items()]
    placed.sort(key=depth)
    unvaried = "this does not vary; the file says it once for all variants"
    mistakes = [Mistake(p.source, unvaried) for p in placed if p.path.partition(".")[0] in WHOLE]
    if mistakes:
        return [], mistakes
    all_settings = []
    for settings, drawn in branches(placed, mistakes):
        if len({random.axis.count for random in drawn}) > 1:
            sources = " and ".join(random.source for random in drawn)
            unequal = "random axes are drawn together, so that they have the same count"
            mistakes.append(Mistake(sources, unequal))
            continue
        columns = [random.axis.drawn(random.path) for random in drawn]
        for row in zip(*columns, strict=True) if drawn else [()]:
            pairs = zip(drawn, row, strict=True)
            extra = [Setting(random.path, value, random.source) for random, value in pairs]
            all_settings.append(tuple(sorted([*settings, *extra], key=depth)))
        if len(all_settings) > MOST:
            many = f"more than {MOST:,} variants; give fewer values, or draw them at random"
            return [], [*mistakes, Mistake("sweep.axes", many)]
    clashes = (clash for settings in all_settings for clash in given_twice(settings))
    return all_settings, list(dict.fromkeys([*mistakes, *clashes]))


WHOLE = ("about", "claim", "seeds", "sweep", "$schema")  # of the sweep, not of a variant


def depth(placed: Setting | Placed) -> int:
    """How deep a setting lies in the file: outer ones come first, so that inner ones stay."""
    return placed.path.count(".")


def branches(
    placed: list[Placed], mistakes: list[Mistake]
) -> Iterator[tuple[list[Setting], list[Placed]]]:
    """Settings of the axes that are not random, each with the random axes that go with it."""
    if not placed:
        yield [], []
        return
    first, *others = placed
    if first.axis.random:
        for settings, drawn in branches(others, mistakes):
            yield settings, [first, *drawn]
        return
    for number, value in enumerate(first.axis.drawn(first.path)):
        source = f"{first.source}.{number}" if isinstance(first.axis, Values) else first.source
        bare, inner = opened(first.path, value, source, mistakes)
        for settings, drawn in branches([*inner, *others], mistakes):
            yield [Setting(first.path, bare, source), *settings], drawn


def opened(path: str, value: Any, source: str, mistakes: list[Mistake]) -> tuple[Any, list[Placed]]:
    """A value without the axes inside it, and these axes."""
    if not isinstance(value, dict):
        return value, []
    bare, axes = {}, []
    for key, inner in value.items():
        inner_path, inner_source = f"{path}.{key}", f"{source}.{key}"
        if not isinstance(inner, dict):
            bare[key] = inner
        elif "name" in inner or kind_of_axis(inner) is None:
            bare[key], more = opened(inner_path, inner, inner_source, mistakes)
            axes += more
        else:
            try:
                axes.append(Placed(inner_path, AXIS.validate_python(inner), inner_source))
            except ValidationError as error:
                mistakes.append(Mistake(inner_source, in_words(error.errors()[0], key, {})))
    return bare, axes


def given_twice(settings: tuple[Setting, ...]) -> Iterator[Mistake]:
    """The settings whose value is also in the component that an earlier setting gives."""
    for number, inner in enumerate(settings):
        for outer in settings[:number]:
            same, inside = inner.path == outer.path, inner.path.startswith(f"{outer.path}.")
            value = outer.value
            for key in inner.path.removeprefix(outer.path).split(".")[1:]:
                value = value.get(key) if isinstance(value, dict) else None
            if same or (inside and value is not None):
                yield Mistake(inner.source, f"{outer.source} gives it too; keep one")


def settings_in_words(settings: Iterable[Setting]) -> str:
    """The settings of a variant in a line: `optimizer adam, optimizer.learning_rate 0.01`."""
    return ", ".join(f"{setting.path} {value_in_words(setting.value)}" for setting in settings)


def value_in_words(value: Any) -> str:
    """A value in a line; a component by its name first."""
    if isinstance(value, dict):
        first = [value["name"]] if "name" in value else []
        others = (
            f"{k} {value_in_words(v)}" for k, v in value.items() if k not in ("name", "digest")
        )
        return " ".join([*first, *others]) or "off"
    if isinstance(value, list) and len(value) > 2 and value.count(value[0]) == len(value):
        return f"{len(value)} × {value_in_words(value[0])}"  # twelve layers of 32 are a long line
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def short_names(paths: Sequence[str]) -> Sequence[str]:
    """The last words of some paths, if that tells them apart."""
    short = [path.rpartition(".")[2] for path in paths]
    return short if len(set(short)) == len(short) else paths
