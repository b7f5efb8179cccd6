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

from nnref.bounds import Count, Index, Positive
from nnref.errors import nearest
from nnref.experiment.claims import Bounds
from nnref.experiment.schema import Part, in_words

DIGITS = 6  # significant, of a value that is computed: short enough to be written in a file


class Axis(Part):
    """The values that something takes."""

    random: ClassVar[bool] = False


class Values(Axis):
    """These values."""

    word: ClassVar[str | None] = "values"
    values: Annotated[tuple[Any, ...], Field(min_length=1, description="one after the other")]

    def drawn(self, path: str) -> list[Any]:
        """The values of the axis at a path."""
        return list(self.values)


class Grid(Axis):
    """Evenly spaced values."""

    word: ClassVar[str | None] = "grid"
    grid: Annotated[
        tuple[float, float, Count], Field(description="first, last, and how many, evenly spaced")
    ]

    def drawn(self, path: str) -> list[float]:
        """The values of the axis at a path."""
        low, high, count = self.grid
        return [rounded(value, low, high) for value in np.linspace(low, high, count)]


class LogGrid(Axis):
    """Values whose logarithms are evenly spaced."""

    word: ClassVar[str | None] = "log_grid"
    log_grid: Annotated[
        tuple[Positive, Positive, Count],
        Field(description="first, last, and how many, their logarithms evenly spaced"),
    ]

    def drawn(self, path: str) -> list[float]:
        """The values of the axis at a path."""
        low, high, count = self.log_grid
        return [rounded(value, low, high) for value in np.geomspace(low, high, count)]


class Drawn(Axis):
    """Values drawn at random; the random axes of a variant are drawn together."""

    random: ClassVar[bool] = True
    count: Annotated[Count, Field(description="draws; the same on every random axis")]
    seed: Annotated[Index, Field(description="of the draws")] = 0

    def shares(self, path: str) -> np.ndarray:
        """Uniform numbers in [0, 1), other ones for each path."""
        return np.random.default_rng([self.seed, *path.encode()]).random(self.count)


class Uniform(Drawn):
    """Values drawn uniformly."""

    word: ClassVar[str | None] = "uniform"
    uniform: Annotated[tuple[float, float], Field(description="lowest and highest")]

    def drawn(self, path: str) -> list[float]:
        """The values of the axis at a path."""
        low, high = self.uniform
        return [rounded(low + (high - low) * share) for share in self.shares(path)]


class LogUniform(Drawn):
    """Values whose logarithms are drawn uniformly."""

    word: ClassVar[str | None] = "log_uniform"
    log_uniform: Annotated[tuple[Positive, Positive], Field(description="lowest and highest")]

    def drawn(self, path: str) -> list[float]:
        """The values of the axis at a path."""
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
    """To six digits; a whole number where both ends are written as such and it is one."""
    short = float(f"{value:.{DIGITS}g}")
    whole = ends and all(float(end).is_integer() for end in ends) and short.is_integer()
    return int(short) if whole else short


def kind_of_axis(given: Any) -> str | None:
    keys = given if isinstance(given, Mapping) else getattr(type(given), "model_fields", ())
    return next((kind for kind in KINDS if kind in keys), None)


def values_in_short(given: Any) -> Any:
    if isinstance(given, list | tuple):
        return {"values": given}
    if kind_of_axis(given) is None:
        hint = nearest(next(iter(given), ""), KINDS) if isinstance(given, dict) else ""
        kinds = ", ".join(KINDS)
        raise ValueError(f"an axis is a list of values, or an object with one of {kinds}{hint}")
    return given


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

    @model_validator(mode="after")
    def target_is_bounded(self) -> "Sweep":
        if self.target is not None:
            self.target.refuse_no_bound()
        return self


class Setting(NamedTuple):
    """One value of a variant, and where in the file it comes from."""

    path: str
    value: Any
    source: str


class Mistake(NamedTuple):
    """What is wrong with an axis, and where."""

    source: str
    said: str


def variants(axes: Mapping[str, Any]) -> tuple[list[tuple[Setting, ...]], list[Mistake]]:
    """The settings of every variant, and what is wrong with the axes.

    Args:
        axes: of a sweep, by path.

    Returns:
        For each variant its settings, those of a component before those inside it. The later axes
        change fastest, and those inside a component faster than it.
    """
    given = [(path, axis, f"sweep.axes.{path}") for path, axis in axes.items()]
    given.sort(key=lambda each: each[0].count("."))
    mistakes = list(dict.fromkeys(refused(given)))
    if mistakes:
        return [], mistakes
    found = []
    for settings, drawn in branches(given, mistakes):
        counts = {axis.count for _, axis, _ in drawn}
        if len(counts) > 1:
            sources = " and ".join(source for *_, source in drawn)
            said = "random axes are drawn together, so that they have the same count"
            mistakes.append(Mistake(sources, said))
            continue
        columns = [axis.drawn(path) for path, axis, _ in drawn]
        for row in zip(*columns, strict=True) if drawn else [()]:
            pairs = zip(drawn, row, strict=True)
            extra = [Setting(path, value, source) for (path, _, source), value in pairs]
            found.append(tuple(sorted([*settings, *extra], key=depth)))
    clashes = (clash for settings in found for clash in twice_in(settings))
    return found, list(dict.fromkeys([*mistakes, *clashes]))


Given = tuple[str, Any, str]  # path, axis, source
WHOLE = ("about", "claim", "seeds", "sweep", "$schema")  # of no variant alone


def refused(given: Iterable[Given]) -> Iterator[Mistake]:
    for path, _, source in given:
        if path.partition(".")[0] in WHOLE:
            yield Mistake(source, "this does not vary; the file says it once for all variants")


def depth(setting: Setting) -> int:
    return setting.path.count(".")


def branches(
    given: list[Given], mistakes: list[Mistake]
) -> Iterator[tuple[list[Setting], list[Given]]]:
    """Settings of the axes that are no random ones, each with the random axes that go with it."""
    if not given:
        yield [], []
        return
    (path, axis, source), *others = given
    if axis.random:
        for settings, drawn in branches(others, mistakes):
            yield settings, [(path, axis, source), *drawn]
        return
    for number, value in enumerate(axis.drawn(path)):
        place = f"{source}.{number}" if isinstance(axis, Values) else source
        bare, inner = opened(path, value, place, mistakes)
        for settings, drawn in branches([*inner, *others], mistakes):
            yield [Setting(path, bare, place), *settings], drawn


def opened(path: str, value: Any, source: str, mistakes: list[Mistake]) -> tuple[Any, list[Given]]:
    """A value without the axes inside it, and those."""
    if not isinstance(value, dict):
        return value, []
    bare, axes = {}, []
    for key, inner in value.items():
        where, place = f"{path}.{key}", f"{source}.{key}"
        if not isinstance(inner, dict):
            bare[key] = inner
        elif "name" in inner or kind_of_axis(inner) is None:
            bare[key], more = opened(where, inner, place, mistakes)
            axes += more
        else:
            try:
                axes.append((where, AXIS.validate_python(inner), place))
            except ValidationError as error:
                one = error.errors()[0]
                mistakes.append(Mistake(place, in_words(one, key, {})))
    return bare, axes


def twice_in(settings: tuple[Setting, ...]) -> Iterator[Mistake]:
    """What one setting says inside the component that another one has given."""
    for number, inner in enumerate(settings):
        for outer in settings[:number]:
            if inner.path == outer.path:
                yield Mistake(inner.source, f"{outer.source} gives it too; keep one")
            if not inner.path.startswith(f"{outer.path}."):
                continue
            value = outer.value
            for key in inner.path.removeprefix(f"{outer.path}.").split("."):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                yield Mistake(inner.source, f"{outer.source} gives it too; keep one")


def told(settings: Iterable[Setting]) -> str:
    """The settings of a variant in a line: `optimizer adam, optimizer.learning_rate 0.01`."""
    return ", ".join(f"{setting.path} {value_in_words(setting.value)}" for setting in settings)


def value_in_words(value: Any) -> str:
    """A value in a line; a component by its name first."""
    if isinstance(value, dict):
        first = [value["name"]] if "name" in value else []
        others = (f"{key} {value_in_words(v)}" for key, v in value.items() if key != "name")
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
